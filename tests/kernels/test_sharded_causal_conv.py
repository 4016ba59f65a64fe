"""The convolution over meshes of eight virtual devices: the values and gradients of one device, and its halo."""

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from griffin_kernels.causal_conv import causal_conv, sharded_causal_conv
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from griffin_eqx.verify import assert_close, tolerance
from tests.meshes import MESHES, collectives, make_mesh, place

pytestmark = pytest.mark.core

ROWS, WIDTH = 8, 8
seeds = st.integers(0, 2**32 - 1)
# (seq_len, conv_width): the usual one; a length that does not divide; windows of several shards and of all.
SIZES = [(32, 4), (19, 4), (16, 6), (8, 12), (16, 1)]


def draw(seq_len, conv_width, seed) -> Any:
    """`(x, weight, bias, positions, before, dy)`; documents of every length, some begun before the row."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    starts = rng.random((ROWS, seq_len)) < 0.2
    positions = np.arange(seq_len) - np.maximum.accumulate(np.where(starts, np.arange(seq_len), 0), axis=1)
    positions += np.where(
        np.maximum.accumulate(starts, axis=1), 0, rng.integers(0, conv_width + 2, (ROWS, 1))
    )
    return (
        normal(ROWS, seq_len, WIDTH),
        normal(conv_width, WIDTH),
        normal(WIDTH),
        jnp.asarray(positions, jnp.int32),
        normal(ROWS, conv_width - 1, WIDTH),
        normal(ROWS, seq_len, WIDTH),
    )


@lru_cache
def program(mesh) -> Any:
    """`(x, weight, bias, positions, before, dy)` to `(y, cotangents)`; on one device for None."""
    conv = causal_conv
    if mesh is not None:
        conv = partial(sharded_causal_conv, mesh=make_mesh(mesh), spec=P("sequence", "model"))

    @jax.jit
    def both(x, weight, bias, positions, before, dy):
        def run(x, weight, bias, before):
            rows = jax.vmap(conv, (0, None, None, 0, 0), spmd_axis_name="data")
            return rows(x, weight, bias, positions, before)

        y, pull = jax.vjp(run, x, weight, bias, before)
        return y, pull(dy)

    return both


@pytest.mark.parametrize(("mesh", "sizes"), [(mesh, SIZES[i % 5]) for i, mesh in enumerate(MESHES)], ids=str)
@given(seed=seeds)
@settings(max_examples=3)
def test_every_mesh_gives_the_values_and_gradients_of_one_device(mesh, sizes, seed):
    arrays = draw(*sizes, seed=seed)
    got, want = program(mesh)(*arrays), program(None)(*arrays)
    assert_close(got, want, "(y, cotangents)", tol=tolerance(np.float32, sizes[0]))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_window_of_any_number_of_shards(sizes):
    arrays = draw(*sizes, seed=1)
    got, want = program((1, 8, 1))(*arrays), program(None)(*arrays)
    assert_close(got, want, "(y, cotangents)", tol=tolerance(np.float32, sizes[0]))


def test_without_bias_and_history():
    x, weight, _, positions, *_ = draw(16, 4, seed=2)
    sharded = partial(sharded_causal_conv, mesh=make_mesh((1, 4, 2)), spec=P("sequence", "model"))
    arguments = x[0], weight, None, positions[0]
    got, want = jax.jit(sharded)(*arguments), causal_conv(*arguments)
    assert_close(got, want, "y", tol=tolerance(np.float32))


def test_a_nan_reaches_the_tokens_that_see_it_and_no_other():
    x, weight, bias, positions, *_ = draw(16, 4, seed=3)
    poisoned = x[0].at[7, 2].set(np.nan)
    sharded = partial(sharded_causal_conv, mesh=make_mesh((1, 8, 1)), spec=P("sequence", "model"))
    got, want = (jax.jit(run)(poisoned, weight, bias, positions[0]) for run in (sharded, causal_conv))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))


@pytest.mark.parametrize(("seq_len", "conv_width", "hops"), [(32, 4, [3]), (16, 6, [2, 2, 1]), (16, 1, [])])
def test_each_shard_is_sent_the_rows_that_it_lacks_and_sends_back_their_cotangents(seq_len, conv_width, hops):
    mesh, rows = (1, 8, 1), ROWS
    x, weight, bias, positions, before, dy = draw(seq_len, conv_width, seed=0)
    on = partial(place, make_mesh(mesh))
    wide, whole = P("data", "sequence", "model"), P("data", None, "model")
    arrays = (
        on(x, wide),
        on(weight, P(None, "model")),
        on(bias, P("model")),
        on(positions, P("data", "sequence")),
        on(before, whole),
        on(dy, wide),
    )
    sent = [n * rows * WIDTH * 4 for n in hops]
    found = collectives(lambda *z: program(mesh)(*z)[0], *arrays)
    assert found == ({"collective-permute": sorted(sent)} if sent else {})
    # The gradients of what all shards share are summed: weight, bias and history, and nothing else.
    found = collectives(program(mesh), *arrays)
    assert found.get("collective-permute", []) == sorted(sent + sent)
    summed = sum(found.pop("all-reduce"))
    assert summed == 4 * (weight.size + bias.size + before.size)
    assert not found.keys() - {"collective-permute"}


def test_over_channels_nothing_is_communicated():
    x, weight, bias, positions, before, _ = draw(16, 4, seed=0)
    run = partial(sharded_causal_conv, mesh=make_mesh((1, 1, 8)), spec=P("sequence", "model"))
    on = partial(place, make_mesh((1, 1, 8)))
    arrays = on(x[0], P(None, "model")), on(weight, P(None, "model")), on(bias, P("model")), positions[0]
    assert collectives(run, *arrays, on(before[0], P(None, "model"))) == {}
