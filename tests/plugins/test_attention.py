"""Local and global attention: what a window means, and what is refused."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from griffin_plugins.global_mqa import GlobalMQABlock, GlobalMQAOptions
from griffin_plugins.local_mqa import LocalMQABlock, LocalMQAOptions

from griffin_eqx import registry
from griffin_eqx.block import Dims, OptionError, SequenceLayout
from griffin_eqx.pattern import PatternError

pytestmark = pytest.mark.core

DEFAULTS: dict[str, Any] = {"head_dim": 4}
DIMS = Dims(width=12, lru_width=20, num_layers=2)


def build_local(**options: Any):
    return LocalMQABlock.init(LocalMQAOptions(**(DEFAULTS | options)), DIMS, key=jax.random.key(0))


def build_global(**options: Any):
    return GlobalMQABlock.init(GlobalMQAOptions(**(DEFAULTS | options)), DIMS, key=jax.random.key(0))


@eqx.filter_jit
def run(block, x, layout=None, cache=None):
    return block(x, layout, cache)[0]


def inputs(seq_len):
    return jnp.asarray(np.random.default_rng(1).standard_normal((seq_len, DIMS.width)), jnp.float32)


@pytest.mark.parametrize("window_size", [1, 2, 5])
def test_a_window_counts_the_token_itself(window_size):
    """RecurrentGemma's own code sees one key more for its number, Hugging Face's just these."""
    block = build_local(window_size=window_size)
    seen = jax.jit(jax.grad(lambda x: block(x)[0][7].sum()))(inputs(9)).any(axis=1)
    assert np.flatnonzero(seen).tolist() == list(range(8 - window_size, 8))


@pytest.mark.parametrize(("max_seq_len", "slots"), [(3, 3), (5, 5), (100, 5)])
def test_the_ring_holds_a_window_or_a_document(max_seq_len, slots):
    assert build_local(window_size=5).init_cache(max_seq_len, jnp.float32).keys.shape[0] == slots


@pytest.mark.parametrize("window_size", [0, -1])
def test_a_window_below_one_is_refused_and_never_means_infinite(window_size):
    message = f"local_mqa: window_size: counts the token itself and must be at least 1, got {window_size}"
    with pytest.raises(PatternError) as caught:
        registry.plan(f"rg_lru local_mqa[window_size={window_size}]")
    assert caught.value.message == message
    assert caught.value.text[caught.value.start : caught.value.end] == f"window_size={window_size}"


@pytest.mark.parametrize(("build", "field"), [(build_local, "key"), (build_global, "value")])
def test_one_key_head_is_the_default(build, field):
    assert getattr(build(), field).weight.shape == (12, 4)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"head_dim": 5}, "head_dim: 5 does not divide width=12; choose one that does, or set num_heads"),
        ({"kv_heads": 2}, "kv_heads: 2 does not divide num_heads=3"),
        ({"rope_fraction": 1.5}, "rope_fraction: must be between 0 and 1, got 1.5"),
        ({"rope_base": 1.0}, "rope_base: must be above 1, got 1.0"),
        ({"head_dim": 0}, "head_dim: must be at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(options, text):
    with pytest.raises(OptionError) as caught:
        build_global(**options)
    assert str(caught.value) == text


@pytest.mark.parametrize("cached", [False, True])
def test_unknown_earlier_tokens_count_as_absent(cached):
    """A first position above 0 without a past: only rotations may know of it, and they see distances alone."""
    block, x = build_global(), inputs(5)
    cache = block.init_cache(16, jnp.float32) if cached else None
    late = run(block, x, SequenceLayout(jnp.arange(7, 12), jnp.asarray(5)), cache)
    np.testing.assert_allclose(late, run(block, x), rtol=1e-4, atol=1e-6)


def test_a_known_document_beyond_its_cache_is_refused_by_text():
    block = build_global()
    with pytest.raises(ValueError) as caught:
        block(inputs(5), SequenceLayout.single(5), block.init_cache(4, jnp.float32))
    assert str(caught.value) == (
        "This cache holds documents of up to 4 tokens; a token stands at position 4. "
        "Build it with a larger max_seq_len."
    )


def test_a_cache_without_a_layout_is_refused():
    block = build_global()
    with pytest.raises(ValueError) as caught:
        block(inputs(2), None, block.init_cache(4, jnp.float32))
    assert str(caught.value) == (
        "A block that is given a cache needs a layout too: positions cannot be guessed. "
        "Pass SequenceLayout(positions, length); positions go on counting from the last chunk."
    )


def test_without_rope_the_order_of_earlier_tokens_does_not_matter():
    block, x = build_global(rope=False), inputs(5)
    turned = jnp.concatenate([x[3::-1], x[4:]])
    np.testing.assert_allclose(run(block, turned)[4], run(block, x)[4], rtol=1e-4, atol=1e-6)
    block = build_global()
    assert not np.allclose(run(block, turned)[4], run(block, x)[4], rtol=1e-2)


def test_rows_that_go_on_and_rows_that_begin_share_a_batch():
    """Attention to the cache is left out where no row of a batch holds anything, and only there."""
    block = build_local(window_size=6)
    x = jax.random.normal(jax.random.key(1), (3, 10, DIMS.width))
    whole = [run(block, row) for row in x]
    empty = block.init_cache(16, jnp.float32)

    def read(x, start, length, cache):
        return block(x, SequenceLayout(start + jnp.arange(4), length), cache)

    @jax.jit
    def step(x, starts, lengths, caches):
        return jax.vmap(read)(x, starts, lengths, caches)

    caches = jax.tree.map(lambda z: jnp.stack([z] * 3), empty)
    starts = jnp.zeros(3, jnp.int32)
    seen = [[], [], []]
    # Tokens of each row in each chunk: a row may have nothing yet where another goes on.
    for lengths in ([4, 0, 0], [3, 4, 0], [3, 4, 4], [0, 2, 4]):
        given = jnp.stack(
            [jnp.pad(row, ((0, 4), (0, 0)))[s : s + 4] for row, s in zip(x, starts, strict=True)]
        )
        y, caches = step(given, starts, jnp.asarray(lengths), caches)
        for row, length in enumerate(lengths):
            seen[row].append(y[row, :length])
        starts = starts + jnp.asarray(lengths)
    for row, count in enumerate(starts.tolist()):
        np.testing.assert_allclose(jnp.concatenate(seen[row]), whole[row][:count], rtol=1e-5, atol=1e-6)


def test_a_batch_with_empty_caches_runs_one_branch_and_not_both():
    block = build_local(window_size=6)
    cache = jax.tree.map(lambda z: jnp.stack([z] * 3), block.init_cache(16, jnp.float32))
    layout = SequenceLayout(jnp.arange(4), jnp.asarray(4))
    x = jnp.ones((3, 4, DIMS.width))
    program = jax.make_jaxpr(jax.vmap(lambda x, cache: block(x, layout, cache)))(x, cache)
    branches = [line for line in str(program).splitlines() if " cond[" in line]
    assert len(branches) == 1
    assert jax.jit(jax.vmap(lambda x, cache: block(x, layout, cache)))(x, cache)[0].shape == x.shape
