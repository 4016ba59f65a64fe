"""Blockwise attention in plain JAX: one `lax.scan` over the pairs of blocks that see each other.

Time is cut into blocks; the static list of (query block, key block) pairs holds the lower triangle of a
band as wide as the window, so nothing outside of the band is ever computed and the program does not grow
with the length. The softmax is the running one (Milakov & Gimelshein 2018, arXiv:1805.02867); the
derivative recomputes the scores (FlashAttention, Dao et al. 2022, arXiv:2205.14135), so that memory is
that of the arguments and one block of scores.

Rows of a block are (token, head of the group) pairs: with one key head, queries lie in memory as they come
out of their projection and one matrix product serves all heads.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array

from griffin_kernels.operation import varying_alike

# Below every finite score and still finite, so that differences of it are 0 and never NaN.
_MASKED = -1e30


def choose_block(seq_len: int, window_size: int) -> int:
    """The tokens a block holds: about a quarter of what a token sees, between 16 and 256.

    Measured on 2 CPU cores (6 heads of 128): larger blocks waste more of the band's two edges, smaller
    ones spend their time between the products.
    """
    quarter = max(1, min(seq_len, window_size) // 4)
    return min(256, max(16, 1 << (quarter.bit_length() - 1)))


def attend(q: Array, k: Array, v: Array, lookback: Array, window_size: int) -> tuple[Array, Array]:
    """`local_attention` on one device."""
    seq_len, window_size = q.shape[0], min(window_size, k.shape[0])
    # Outside of the derivative rule, so that cotangents of what varies less are summed.
    q, k, v, lookback = varying_alike(q, k, v, lookback)
    return blockwise_attention(q, k, v, lookback, window_size, choose_block(seq_len, window_size))


def block_pairs(
    num_blocks: int, block: int, window_size: int, earlier: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The (query block, key block) pairs of the band, row by row; `earlier` key blocks precede the queries' own."""
    reach = -(-(window_size - 1) // block)
    pairs = [(i, j) for i in range(num_blocks) for j in range(max(0, i + earlier - reach), i + earlier + 1)]
    return np.array([i for i, _ in pairs], np.int32), np.array([j for _, j in pairs], np.int32)


def _to_rows(z, num_blocks, kv_heads):
    """`[padded_len, heads, head_dim]` as `[num_blocks, kv_heads, block * group, head_dim]`."""
    padded_len, heads, head_dim = z.shape
    z = z.reshape(num_blocks, padded_len // num_blocks, kv_heads, heads // kv_heads, head_dim)
    return jnp.moveaxis(z, 2, 1).reshape(num_blocks, kv_heads, -1, head_dim)


def _from_rows(z, group, seq_len):
    num_blocks, kv_heads, rows, head_dim = z.shape
    z = jnp.moveaxis(z.reshape(num_blocks, kv_heads, rows // group, group, head_dim), 1, 2)
    return z.reshape(-1, kv_heads * group, head_dim)[:seq_len]


def _blocks(q, k, v, lookback, block):
    """Queries, keys, values and lookback in blocks, and how many key blocks precede the first query's."""
    num_blocks, earlier = -(-q.shape[0] // block), k.shape[0] - q.shape[0]
    pad, front = num_blocks * block - q.shape[0], -earlier % block
    q = jnp.pad(q, ((0, pad), (0, 0), (0, 0)))
    k, v = (jnp.pad(z, ((front, pad), (0, 0), (0, 0))) for z in (k, v))
    if front:  # which no query sees
        lookback = jnp.minimum(lookback, earlier + jnp.arange(lookback.shape[0], dtype=lookback.dtype))
    lookback = jnp.pad(lookback, (0, pad)).reshape(num_blocks, block)
    kv_heads, ahead = k.shape[1], (earlier + front) // block
    keys = (_to_rows(z, ahead + num_blocks, kv_heads) for z in (k, v))
    return _to_rows(q, num_blocks, kv_heads), *keys, lookback, ahead


def _scores(q_i, k_j, blocks_back, lookback_i):
    """Scaled scores of one pair of blocks in float32 and which of them are visible."""
    block, rows = k_j.shape[1], q_i.shape[1]
    score = jnp.einsum(
        "krd,kjd->krj", q_i, k_j, preferred_element_type=np.promote_types(q_i.dtype, jnp.float32)
    )
    back = blocks_back * block + jnp.arange(block)[:, None] - jnp.arange(block)[None, :]
    visible = (back >= 0) & (back <= lookback_i[:, None])
    visible = jnp.broadcast_to(visible[:, None, :], (block, rows // block, block)).reshape(1, rows, block)
    return score * q_i.shape[2] ** -0.5, visible


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def blockwise_attention(q, k, v, lookback, window_size, block):
    """`(out, lse)` of the attention; see `local_attention` for shapes and meaning."""
    seq_len, heads, _ = q.shape
    group = heads // k.shape[1]
    q_b, k_b, v_b, lookback_b, ahead = _blocks(q, k, v, lookback, block)
    wide = np.promote_types(q.dtype, jnp.float32)

    def step(carry, pair):
        out, top, total = carry
        i, j = pair
        score, visible = _scores(q_b[i], k_b[j], i + ahead - j, lookback_b[i])
        score = jnp.where(visible, score, _MASKED)
        new_top = jnp.maximum(top[i], score.max(-1))
        weight = jnp.where(visible, jnp.exp(score - new_top[..., None]), 0)
        keep = jnp.exp(top[i] - new_top)
        mixed = jnp.einsum("krj,kjd->krd", weight.astype(v.dtype), v_b[j], preferred_element_type=wide)
        out = out.at[i].set(out[i] * keep[..., None] + mixed)
        total = total.at[i].set(total[i] * keep + weight.sum(-1))
        return (out, top.at[i].set(new_top), total), None

    start = (
        jnp.zeros(q_b.shape, wide),
        jnp.full(q_b.shape[:3], _MASKED, wide),
        jnp.zeros(q_b.shape[:3], wide),
    )
    start, _ = varying_alike(start, q_b)
    (out, top, total), _ = jax.lax.scan(step, start, block_pairs(q_b.shape[0], block, window_size, ahead))
    out = _from_rows((out / total[..., None]).astype(q.dtype), group, seq_len)
    return out, _from_rows((top + jnp.log(total))[..., None], group, seq_len)[..., 0]


def _forward(q, k, v, lookback, window_size, block):
    answer: Any = blockwise_attention(q, k, v, lookback, window_size, block)
    out, lse = answer
    # Named, so that a `jax.checkpoint` policy can keep them instead of running the blocks again.
    out, lse = checkpoint_name(out, "local_attention"), checkpoint_name(lse, "local_attention")
    return (out, lse), (q, k, v, lookback, out, lse)


def _backward(window_size, block, residuals, cotangents):
    q, k, v, lookback, out, lse = residuals
    dout, dlse = cotangents
    seq_len, heads, head_dim = q.shape
    kv_heads = k.shape[1]
    q_b, k_b, v_b, lookback_b, ahead = _blocks(q, k, v, lookback, block)
    num_blocks = q_b.shape[0]
    pad = ((0, num_blocks * block - seq_len), (0, 0), (0, 0))
    # Softmax: dscore = weight * (dweight - sum(dout * out)); a cotangent of lse adds weight * dlse.
    pull = (dout.astype(lse.dtype) * out.astype(lse.dtype)).sum(-1) - dlse
    dout_b, pull_b, lse_b = (
        _to_rows(jnp.pad(z, pad), num_blocks, kv_heads) for z in (dout, pull[..., None], lse[..., None])
    )
    wide = lse.dtype
    scale = head_dim**-0.5

    def step(carry, pair):
        dq, dk, dv = carry
        i, j = pair
        score, visible = _scores(q_b[i], k_b[j], i + ahead - j, lookback_b[i])
        weight = jnp.where(visible, jnp.exp(score - lse_b[i]), 0)
        dweight = jnp.einsum("krd,kjd->krj", dout_b[i], v_b[j], preferred_element_type=wide)
        dscore = jnp.where(visible, weight * (dweight - pull_b[i]), 0) * scale
        weight, dscore = weight.astype(q.dtype), dscore.astype(q.dtype)
        product = partial(jnp.einsum, preferred_element_type=wide)
        dq = dq.at[i].add(product("krj,kjd->krd", dscore, k_b[j]))
        dk = dk.at[j].add(product("krj,krd->kjd", dscore, q_b[i]))
        dv = dv.at[j].add(product("krj,krd->kjd", weight, dout_b[i]))
        return (dq, dk, dv), None

    zeros = tuple(jnp.zeros(z.shape, wide) for z in (q_b, k_b, v_b))
    zeros, _ = varying_alike(zeros, q_b)
    (dq, dk, dv), _ = jax.lax.scan(step, zeros, block_pairs(num_blocks, block, window_size, ahead))
    dq = _from_rows(dq, heads // kv_heads, seq_len)
    front = -(k.shape[0] - seq_len) % block
    dk, dv = (_from_rows(z, 1, None)[front : front + k.shape[0]] for z in (dk, dv))
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None


blockwise_attention.defvjp(_forward, _backward)
