"""Local attention over meshes of eight virtual devices: the values and gradients of one device, and its halo."""

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from griffin_kernels.local_attention import local_attention, sharded_local_attention
from griffin_kernels.local_attention.oracle import local_attention_oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from griffin_eqx.verify import assert_close, tolerance
from tests.meshes import MESHES, collectives, make_mesh, place

pytestmark = pytest.mark.core

ROWS, HEADS, HEAD_DIM = 8, 8, 4
SPEC = P("sequence", "model", None)
seeds = st.integers(0, 2**32 - 1)
# (seq_len, window_size, kv_heads): a window within a shard; of several shards, on a length that does not divide; of
# the token itself; longer than the sequence.
SIZES = [(64, 6, 1), (37, 20, 2), (16, 1, 8), (24, 40, 1)]


def draw(seq_len, window_size, kv_heads, seed):
    """`(q, k, v, lookback, dout, dlse)`; some tokens look further back than there are any."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(rng.standard_normal((ROWS, seq_len, *shape)), jnp.float32)  # noqa: E731
    lookback = jnp.asarray(rng.integers(0, window_size, (ROWS, seq_len)), jnp.int32)
    keys = normal(kv_heads, HEAD_DIM), normal(kv_heads, HEAD_DIM)
    return normal(HEADS, HEAD_DIM), *keys, lookback, normal(HEADS, HEAD_DIM), normal(HEADS)


@lru_cache
def program(mesh, window_size) -> Any:
    """`(q, k, v, lookback, dout, dlse)` to `((out, lse), (dq, dk, dv))`; on one device for None."""
    attention = partial(local_attention, window_size=window_size)
    if mesh is not None:
        attention = partial(sharded_local_attention, window_size=window_size, mesh=make_mesh(mesh), spec=SPEC)

    @jax.jit
    def both(q, k, v, lookback, dout, dlse):
        rows: Any = jax.vmap(attention, spmd_axis_name="data")
        run = lambda *qkv: rows(*qkv, lookback)  # noqa: E731
        out, pull = jax.vjp(run, q, k, v)
        return out, pull((dout, dlse))

    return both


def compare(mesh, sizes, seed):
    arrays = draw(*sizes, seed=seed)
    got, want = program(mesh, sizes[1])(*arrays), program(None, sizes[1])(*arrays)
    for name, one, other in zip(("(out, lse)", "cotangents of (q, k, v)"), got, want, strict=True):
        assert_close(one, other, name, tol=tolerance(np.float32, sizes[0]))


@pytest.mark.parametrize(("mesh", "sizes"), [(mesh, SIZES[i % 4]) for i, mesh in enumerate(MESHES)], ids=str)
@given(seed=seeds)
@settings(max_examples=3)
def test_every_mesh_gives_the_values_and_gradients_of_one_device(mesh, sizes, seed):
    compare(mesh, sizes, seed)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_window_of_any_number_of_shards(sizes):
    compare((1, 8, 1), sizes, seed=1)


@pytest.mark.parametrize(
    ("sizes", "earlier"),
    [((5, 3, 1), 1), ((16, 9, 2), 16), ((39, 20, 1), 33), ((8, 40, 2), 15)],
    ids=str,
)
def test_keys_of_earlier_tokens_are_seen_as_if_they_were_of_the_chunk(sizes, earlier):
    seq_len, window_size, kv_heads = sizes
    q, k, v, lookback, dout, dlse = (
        z[0] for z in draw(seq_len + earlier, max(window_size, earlier), kv_heads, seed=0)
    )
    lookback = jnp.minimum(lookback, window_size - 1)
    own = slice(earlier, None)

    @jax.jit
    def part(q, k, v):
        run: Any = partial(local_attention, window_size=window_size)
        out, pull = jax.vjp(lambda *qkv: run(*qkv, lookback[own]), q, k, v)
        return out, pull((dout[own], dlse[own]))

    @jax.jit
    def whole(q, k, v):
        run: Any = partial(local_attention, window_size=window_size)
        out, pull = jax.vjp(lambda *qkv: run(*qkv, lookback), q, k, v)
        return out, pull((dout.at[:earlier].set(0), dlse.at[:earlier].set(0)))

    (out, lse), (dq, dk, dv) = part(q[own], k, v)
    want, (want_dq, *want_keys) = whole(q, k, v)
    tol = tolerance(np.float32, seq_len + earlier)
    oracle = tuple(z[own] for z in local_attention_oracle(q, k, v, lookback))
    assert_close((out, lse), oracle, "(out, lse)", tol=tol)
    assert_close((out, lse), tuple(z[own] for z in want), "(out, lse)", tol=tol)
    assert_close((dq, dk, dv), (want_dq[own], *want_keys), "cotangents of (q, k, v)", tol=tol)


def placed(mesh, sizes):
    on = partial(place, make_mesh(mesh))
    keys = P("data", "sequence", "model" if sizes[2] % mesh[2] == 0 else None, None)
    heads = P("data", "sequence", "model", None)
    specs = heads, keys, keys, P("data", "sequence"), heads, P("data", "sequence", "model")
    return [on(z, spec) for z, spec in zip(draw(*sizes, seed=0), specs, strict=True)]


@pytest.mark.parametrize(
    ("mesh", "sizes", "hops"),
    [
        ((1, 8, 1), (64, 6, 1), [5]),
        ((2, 4, 1), (32, 20, 2), [8, 8, 3]),
        ((1, 4, 2), (32, 5, 1), [4]),
        ((4, 1, 2), (32, 5, 2), []),
    ],
    ids=str,
)
def test_each_shard_is_sent_one_window_and_sends_back_its_cotangents(mesh, sizes, hops):
    arrays, run = placed(mesh, sizes), program(mesh, sizes[1])
    rows, (seq_len, _, kv_heads) = ROWS // mesh[0], sizes
    sent = sorted(n * rows * kv_heads * 2 * HEAD_DIM * 4 for n in hops)
    wanted = {"collective-permute": sent} if sent else {}
    assert collectives(lambda *z: run(*z)[0], *arrays) == wanted
    found = collectives(run, *arrays)
    # Heads on several devices that share keys: the cotangents of those are sums over the devices.
    shared = kv_heads % mesh[2] != 0
    summed = 2 * rows * (seq_len // mesh[1]) * kv_heads * HEAD_DIM * 4 if shared else 0
    assert sum(found.pop("all-reduce", [])) == summed
    assert found.pop("collective-permute", []) == sorted(sent + sent)
    assert not found


@pytest.mark.parametrize(("kv_heads", "model"), [(1, 4), (2, 4)])
def test_the_attention_of_one_device_runs_in_a_checked_shard_map(kv_heads, model):
    q, k, v, lookback, dout, dlse = (z[0] for z in draw(12, 5, kv_heads, seed=0))
    k, v = (jnp.repeat(z[:, :1], kv_heads, axis=1) for z in (k, v))  # so that any key head will do

    def run(q, k, v):
        return local_attention(q, k[:, :1], v[:, :1], lookback, window_size=5)

    heads = P(None, "model", None)
    mapped = jax.shard_map(
        run,
        mesh=make_mesh((1, 1, model)),
        in_specs=(heads, P(), P()),
        out_specs=(heads, P(None, "model")),
        check_vma=True,
    )
    got, want = (jax.jit(lambda *qkv, f=f: jax.vjp(f, *qkv)[1]((dout, dlse)))(q, k, v) for f in (mapped, run))
    assert_close(got, want, "cotangents of (q, k, v)", tol=tolerance(np.float32, 12))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("heads", "arguments", "text"),
    [
        (
            (8, 1),
            {"spec": P("sequence", None, "model")},
            "sharded_local_attention cannot split a head: got P('sequence', None, 'model'). Write None for "
            "head_dim.",
        ),
        (
            (6, 3),
            {},
            "sharded_local_attention splits 6 heads over 2 shards: 3 on a shard are no part of one group of 2 that "
            "shares keys. Leave heads whole with None, or choose another kv_heads=3.",
        ),
        (
            (7, 1),
            {},
            "sharded_local_attention splits axis 1 of q over 2 shards, and its size 7 is no multiple of that: got "
            "P('sequence', 'model', None) for q of shape (8, 7, 4). Pad the axis, or leave it whole with "
            "None.",
        ),
        (
            (8, 1),
            {"window_size": 0},
            "sharded_local_attention needs a window of at least the token itself: got window_size=0.",
        ),
    ],
)
def test_wrong_arguments_are_refused(heads, arguments, text):
    arguments = {"spec": SPEC, "mesh": make_mesh((1, 4, 2)), "window_size": 3} | arguments
    q, k = (jnp.zeros((8, n, HEAD_DIM)) for n in heads)
    with pytest.raises(ValueError) as caught:
        sharded_local_attention(q, k, k, jnp.zeros(8, jnp.int32), **arguments)
    assert str(caught.value) == text


def test_fewer_keys_than_queries_are_refused():
    q, k = jnp.zeros((3, 1, HEAD_DIM)), jnp.zeros((2, 1, HEAD_DIM))
    with pytest.raises(ValueError) as caught:
        local_attention(q, k, k, jnp.zeros(3, jnp.int32), window_size=2)
    assert str(caught.value) == "local_attention needs a key for each query: got 2 for 3 queries."
