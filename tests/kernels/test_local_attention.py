"""Attention over a bounded look-back, against the loop in float64 and an ordinary softmax in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from griffin_kernels.local_attention import api, cached_attention, local_attention, merge
from griffin_kernels.local_attention.oracle import local_attention_oracle
from griffin_kernels.local_attention.xla import block_pairs, choose_block
from hypothesis import given
from hypothesis import strategies as st

from griffin_eqx.verify import assert_close, assert_finite, tolerance
from griffin_eqx.verify.program import equations

pytestmark = pytest.mark.core

# (seq_len, window_size, num_heads, kv_heads): one token, less than a block, exactly one, and several with a
# band that is narrower than a block, wider, and as wide as the sequence.
SHAPES = [(1, 1, 2, 1), (5, 3, 4, 2), (16, 9, 3, 3), (33, 1, 2, 1), (39, 20, 4, 2), (50, 50, 3, 1)]
HEAD_DIM = 4
shapes = st.sampled_from(SHAPES)
seeds = st.integers(0, 2**32 - 1)
# Scores of hundreds: their exponentials overflow unless the largest one is taken off first.
scales = st.sampled_from([1.0, 30.0])


def draw(shape, seed, scale=1.0):
    seq_len, window_size, num_heads, kv_heads = shape
    rng = np.random.default_rng(seed)
    q, k, v, dout = (
        rng.standard_normal((seq_len, n, HEAD_DIM)) for n in (num_heads, kv_heads, kv_heads, num_heads)
    )
    lookback = rng.integers(0, window_size, seq_len)
    dlse = rng.standard_normal((seq_len, num_heads))
    cast = [z.astype(np.float32) for z in (scale * q, scale * k, v, dout, dlse)]
    return *cast[:3], lookback.astype(np.int32), *cast[3:]


def dense(q, k, v, visible):
    """Softmax attention as in a textbook."""
    k, v = (jnp.repeat(z, q.shape[1] // k.shape[1], axis=1) for z in (k, v))
    score = jnp.einsum("thd,shd->ths", q, k) / HEAD_DIM**0.5
    score = jnp.where(visible[:, None, :], score, -jnp.inf)
    lse = jax.nn.logsumexp(score, axis=-1)
    return jnp.einsum("ths,shd->thd", jnp.exp(score - lse[..., None]), v), lse


def seen(lookback):
    back = np.arange(len(lookback))[:, None] - np.arange(len(lookback))
    return (back >= 0) & (back <= lookback[:, None])


def dense_vjp(arguments, cotangents):
    """The cotangents of q, k, v in float64, by automatic differentiation of the textbook form."""
    *qkv, visible = arguments

    @jax.jit
    def pull(qkv, cotangents):
        return jax.vjp(lambda q, k, v: dense(q, k, v, visible), *qkv)[1](cotangents)

    with jax.enable_x64(True):
        return pull(*(tuple(jnp.asarray(z, jnp.float64) for z in group) for group in (qkv, cotangents)))


local = jax.jit(local_attention, static_argnames="window_size")


@jax.jit(static_argnames="window_size")
def local_vjp(q, k, v, lookback, dout, dlse, window_size):
    run = lambda q, k, v: local_attention(q, k, v, lookback, window_size=window_size)  # noqa: E731
    return jax.vjp(run, q, k, v)[1]((dout, dlse))


@given(shapes, seeds, scales)
def test_attention_equals_the_loop_in_float64(shape, seed, scale):
    q, k, v, lookback, *_ = draw(shape, seed, scale)
    out = local(q, k, v, lookback, window_size=shape[1])
    want = local_attention_oracle(q, k, v, lookback)
    # A score's rounding error, as large as the score times eps, is a relative error of its weight.
    assert_close(out, want, "(out, lse)", tol=scale * tolerance(np.float32, shape[0]))


@given(shapes, seeds)
def test_bfloat16_loses_no_more_than_its_own_rounding(shape, seed):
    q, k, v, lookback, *_ = draw(shape, seed)
    q, k, v = (jnp.asarray(z, jnp.bfloat16) for z in (q, k, v))
    out, lse = local(q, k, v, lookback, window_size=shape[1])
    assert (out.dtype, lse.dtype) == (jnp.bfloat16, jnp.float32)
    want, want_lse = local_attention_oracle(q, k, v, lookback)
    # Weights and outputs are rounded once each; scores and sums are in float32.
    assert_close(out, want, "out", tol=2 * float(jnp.finfo(jnp.bfloat16).eps))
    assert_close(lse, want_lse, "lse", tol=tolerance(np.float32, shape[0]))


@given(shapes, seeds, st.sampled_from(["out", "lse"]))
def test_gradients_equal_those_of_a_dense_softmax_in_float64(shape, seed, alone):
    q, k, v, lookback, dout, dlse = draw(shape, seed)
    cotangents = (dout, 0 * dlse) if alone == "out" else (0 * dout, dlse)
    got = local_vjp(q, k, v, lookback, *cotangents, window_size=shape[1])
    want = dense_vjp((q, k, v, seen(lookback)), cotangents)
    assert_close(
        got, want, f"cotangents of (q, k, v) for one of {alone} alone", tol=tolerance(np.float32, shape[0])
    )


@jax.jit(static_argnames=("cut", "window_size"))
def in_two_parts(q, k, v, lookback, dout, cut, window_size):
    """Attention of the tokens from `cut` on, to each other and to cached keys, and its cotangents."""
    back = jnp.arange(q.shape[0])[cut:, None] - jnp.arange(cut)[None]
    visible = back <= lookback[cut:, None]

    def run(q, k, v):
        own = local_attention(q[cut:], k[cut:], v[cut:], lookback[cut:], window_size=window_size)
        return merge(own, cached_attention(q[cut:], k[:cut], v[:cut], visible))

    out, pull = jax.vjp(run, q, k, v)
    return out, pull(dout[cut:])


@given(st.sampled_from([((5, 3, 4, 2), 3), ((17, 17, 2, 1), 1)]), seeds, scales)
def test_attention_to_cached_keys_merges_into_one_attention(shape_and_cut, seed, scale):
    shape, cut = shape_and_cut
    q, k, v, lookback, dout, dlse = draw(shape, seed, scale)
    dout[:cut] = 0
    out, pulled = in_two_parts(q, k, v, lookback, dout, cut, shape[1])
    tol = scale * tolerance(np.float32, shape[0])
    assert_close(out, local_attention_oracle(q, k, v, lookback)[0][cut:], "out", tol=tol)
    want = dense_vjp((q, k, v, seen(lookback)), (dout, 0 * dlse))
    assert_close(pulled, want, "cotangents of (q, k, v)", tol=tol)


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_a_query_that_sees_no_cached_key_is_left_alone(scale):
    """Its gradient too: the softmax of what it does see may have any normaliser."""
    q, k, v, lookback, dout, _ = map(jnp.asarray, draw((5, 3, 4, 2), 0, scale))
    nothing = jnp.zeros((5, 7), bool)

    def run(q, k, v, with_cache):
        own = local_attention(q, k, v, lookback, window_size=3)
        if not with_cache:
            return jnp.vdot(dout, own[0])
        cached = jnp.ones((7, 2, HEAD_DIM))
        return jnp.vdot(dout, merge(own, cached_attention(q, cached, cached, nothing)))

    out, lse = cached_attention(q, jnp.ones((7, 2, HEAD_DIM)), jnp.ones((7, 2, HEAD_DIM)), nothing)
    assert not out.any()
    assert (lse == -jnp.inf).all()
    grads = [jax.grad(run, argnums=(0, 1, 2))(q, k, v, flag) for flag in (True, False)]
    assert_finite(grads[0], "gradient")
    assert_close(
        grads[0], grads[1], "gradient with a cache of which nothing is seen", tol=tolerance(np.float32, 5)
    )


@given(st.integers(1, 400), st.integers(1, 500))
def test_pairs_of_blocks_are_those_of_the_band(seq_len, window_size):
    block = choose_block(seq_len, window_size)
    blocks = -(-seq_len // block)
    rows, columns = block_pairs(blocks, block, window_size)
    wanted = {
        (i, j)
        for i in range(blocks)
        for j in range(i + 1)
        if i == j or i * block - (j * block + block - 1) < window_size
    }
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == wanted
    assert len(rows) == len(wanted)


def test_work_grows_as_seq_len_times_window():
    def keys_computed(seq_len, window_size):
        block = choose_block(seq_len, window_size)
        return len(block_pairs(-(-seq_len // block), block, window_size)[0]) * block**2

    for seq_len in (1024, 4096, 16384):
        for window_size in (64, 256, 1024):
            # Blocks of a quarter window: the band's two edges cost one half more than the band itself.
            assert keys_computed(seq_len, window_size) <= 1.5 * seq_len * window_size


@pytest.mark.parametrize("differentiate", [False, True])
def test_memory_and_program_do_not_grow_with_the_square_of_the_length(differentiate):
    def trace(seq_len):
        q, k, v, lookback, dout, dlse = draw((seq_len, 64, 2, 1), 0)
        if differentiate:
            return jax.make_jaxpr(partial(local_vjp, window_size=64))(q, k, v, lookback, dout, dlse)
        return jax.make_jaxpr(partial(local, window_size=64))(q, k, v, lookback)

    short, long = trace(1024), trace(4096)
    assert len(list(equations(short.jaxpr))) == len(list(equations(long.jaxpr)))
    largest = max(out.aval.size for equation in equations(long.jaxpr) for out in equation.outvars)
    assert largest == 4096 * 2 * HEAD_DIM


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("window_size", [0, -1])
def test_a_window_without_the_token_itself_is_refused(window_size):
    """Elsewhere a negative window silently means an infinite one."""
    q, k, v, lookback, *_ = map(jnp.asarray, draw((5, 3, 4, 2), 0))
    with pytest.raises(ValueError) as caught:
        local_attention(q, k, v, lookback, window_size=window_size)
    text = f"local_attention needs a window of at least the token itself: got window_size={window_size}."
    assert str(caught.value) == text


@pytest.mark.usefixtures("unchecked")
def test_heads_that_cannot_share_keys_are_refused():
    q, k, v, lookback, *_ = map(jnp.asarray, draw((5, 3, 3, 2), 0))
    for call in (
        lambda: local_attention(q, k, v, lookback, window_size=3),
        lambda: cached_attention(q, k, v, jnp.ones((5, 5), bool)),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert str(caught.value) == "num_heads must be a multiple of kv_heads: got 3 and 2."


def test_no_tokens_give_no_outputs():
    empty = jnp.zeros((0, 2, HEAD_DIM))
    out, lse = local_attention(empty, empty, empty, jnp.zeros(0, jnp.int32), window_size=3)
    assert (out.shape, lse.shape) == ((0, 2, HEAD_DIM), (0, 2))


@pytest.mark.parametrize("slots", [6, 13])
def test_cached_keys_in_blocks_are_all_of_them_at_once(slots, monkeypatch):
    rng = np.random.default_rng(slots)
    q = jnp.asarray(rng.standard_normal((5, 4, HEAD_DIM)), jnp.float32)
    k, v = jnp.asarray(rng.standard_normal((2, slots, 2, HEAD_DIM)), jnp.float32)
    dout = jnp.asarray(rng.standard_normal(q.shape), jnp.float32)
    visible = jnp.asarray(rng.random((5, slots)) < 0.4).at[2].set(False).at[3, slots // 2 :].set(False)

    def run(q, k, v):
        out, lse = cached_attention(q, k, v, visible)
        return jnp.vdot(dout, out) + jnp.where(jnp.isfinite(lse), lse, 0).sum(), (out, lse)

    whole = jax.grad(run, argnums=(0, 1, 2), has_aux=True)(q, k, v)
    monkeypatch.setattr(api, "_SCORES", 20 * 4)  # four keys a block
    blocks = jax.grad(run, argnums=(0, 1, 2), has_aux=True)(q, k, v)
    assert_close(blocks[0], whole[0], "gradient", tol=tolerance(np.float32, slots))
    (out, lse), (all_out, all_lse) = blocks[1], whole[1]
    assert_close(out, all_out, "out", tol=tolerance(np.float32, slots))
    np.testing.assert_array_equal(jnp.isneginf(lse), jnp.isneginf(all_lse))
    some = jnp.isfinite(all_lse)
    assert_close(lse[some], all_lse[some], "lse", tol=tolerance(np.float32, slots))
