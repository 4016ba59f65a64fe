"""The public functions: attention within a chunk, attention to cached keys, and their merge."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from griffin_kernels.local_attention.heads import check_heads, splits_heads
from griffin_kernels.local_attention.sharded import sharded_local_attention
from griffin_kernels.local_attention.xla import attend
from griffin_kernels.mesh import mesh_in_effect, splits_time
from griffin_kernels.operation import varying_alike

_SCORES = 2**24
"""Scores that `cached_attention` holds at once, 64 MiB of float32."""


def local_attention(
    q: Float[Array, "seq_len num_heads head_dim"],
    k: Float[Array, "keys kv_heads head_dim"],
    v: Float[Array, "keys kv_heads head_dim"],
    lookback: Int[Array, " seq_len"],
    *,
    window_size: int,
) -> tuple[Float[Array, "seq_len num_heads head_dim"], Float[Array, "seq_len num_heads"]]:
    """Computes causal softmax attention of token t over the keys `t - lookback[t] .. t`.

    Costs time and memory proportional to `seq_len * window_size`, forward and backward. Scores, softmax
    and sums are in `promote_types(dtype, float32)`. With `jax.set_mesh` in effect, as `sharded_local_attention`.

    Args:
      q: Queries, rotated already. Head h reads key head `h // (num_heads // kv_heads)`.
      k: Keys: one for each query, and before them those of any number of earlier tokens.
      v: Values.
      lookback: How many earlier tokens each query sees, 0 to `window_size - 1`.
      window_size: Number of keys a token sees at most, itself included.

    Returns:
      `(out, lse)`: the mixed values in the dtype of `q`, and the log of each softmax denominator in
      `promote_types(dtype, float32)`, with which `merge` joins results over further keys.

    Raises:
      ValueError: If `num_heads` is no multiple of `kv_heads`, `window_size` is below 1, or there are fewer
        keys than queries.

    >>> q = jnp.zeros((2, 1, 4))
    >>> v = jnp.arange(8.0).reshape(2, 1, 4)
    >>> local_attention(q, q, v, jnp.arange(2), window_size=2)[0][:, 0, 0].tolist()
    [0.0, 2.0]
    """
    check_heads(q, k)
    if window_size < 1:
        raise ValueError(f"local_attention needs a window of at least the token itself: got {window_size=}.")
    seq_len, keys = q.shape[0], k.shape[0]
    if keys < seq_len:
        raise ValueError(f"local_attention needs a key for each query: got {keys} for {seq_len} queries.")
    if seq_len == 0:
        return q, jnp.zeros(q.shape[:2], np.promote_types(q.dtype, jnp.float32))
    mesh = mesh_in_effect()
    # Keys of tokens before the first query have no place on a mesh of their own: left to the compiler.
    if mesh is not None and keys == seq_len:
        spec = PartitionSpec(splits_time(mesh, seq_len), splits_heads(mesh, q, k), None)
        return sharded_local_attention(q, k, v, lookback, window_size=window_size, mesh=mesh, spec=spec)
    return attend(q, k, v, lookback, window_size)


def cached_attention(
    q: Float[Array, "seq_len num_heads head_dim"],
    k: Float[Array, "slots kv_heads head_dim"],
    v: Float[Array, "slots kv_heads head_dim"],
    visible: Bool[Array, "seq_len slots"],
) -> tuple[Float[Array, "seq_len num_heads head_dim"], Float[Array, "seq_len num_heads"]]:
    """Computes softmax attention over the cached keys that each query may see, possibly none.

    Where several queries meet many keys, keys are taken a block at a time, so that memory does not grow with both.

    Returns:
      `(out, lse)` as `local_attention`; where nothing is visible `out` is 0 and `lse` is -inf.
    """
    check_heads(q, k)
    slots = k.shape[0]
    blocks = -(-q.shape[0] * q.shape[1] * slots // _SCORES)
    if q.shape[0] == 1 or blocks <= 1:
        return _attend(q, k, v, visible)
    block = -(-slots // blocks)
    pad = blocks * block - slots
    k, v = (jnp.pad(z, ((0, pad), (0, 0), (0, 0))).reshape(blocks, block, *z.shape[1:]) for z in (k, v))
    visible = jnp.pad(visible, ((0, 0), (0, pad))).reshape(-1, blocks, block)

    def step(carry, inputs):
        return _joined(carry, _attend(q, *inputs)), None

    wide = np.promote_types(q.dtype, jnp.float32)
    start = jnp.zeros(q.shape, wide), jnp.full(q.shape[:2], -jnp.inf, wide)
    start, _ = varying_alike(start, (q, k, v, visible))
    (out, lse), _ = jax.lax.scan(step, start, (k, v, jnp.moveaxis(visible, 1, 0)))
    return out.astype(q.dtype), lse


def _joined(first, second):
    """The running softmax over two sets of keys, each possibly empty; the values stay wide."""
    (out_1, lse_1), (out_2, lse_2) = first, second
    top = jnp.maximum(lse_1, lse_2)
    top = jnp.where(jnp.isfinite(top), top, 0)
    share_1, share_2 = jnp.exp(lse_1 - top), jnp.exp(lse_2 - top)
    total = share_1 + share_2
    there = total > 0
    safe = jnp.where(there, total, 1)
    mixed = share_1[..., None] * out_1 + share_2[..., None] * out_2.astype(out_1.dtype)
    return mixed / safe[..., None], jnp.where(there, top + jnp.log(safe), -jnp.inf)


def _attend(q, k, v, visible):
    """`cached_attention` with all scores at once."""
    seq_len, num_heads, head_dim = q.shape
    wide = np.promote_types(q.dtype, jnp.float32)
    product = partial(jnp.matmul, preferred_element_type=wide)
    grouped = q.reshape(seq_len, k.shape[1], -1, head_dim)
    if seq_len == 1:
        # One product a key head, keys first: else XLA on CPU transposes keys and values for a handful of queries.
        score = jax.vmap(lambda k, q: product(k, q.T).T, in_axes=(1, 0))(k, grouped[0])[None]
    else:
        score = jnp.einsum("tkgd,skd->tkgs", grouped, k, preferred_element_type=wide)
    score = score * head_dim**-0.5
    visible = visible[:, None, None, :]
    score = jnp.where(visible, score, -jnp.inf)
    # A row with no visible key has the maximum -inf: 0 in its place keeps values and derivatives finite.
    top = score.max(-1, keepdims=True, initial=-jnp.inf)
    top = jnp.where(jnp.isfinite(top), top, 0)
    weight = jnp.where(visible, jnp.exp(score - top), 0)
    total = weight.sum(-1, keepdims=True)
    weight = weight.astype(v.dtype)
    if seq_len == 1:
        out = jax.vmap(product, in_axes=(0, 1))(weight[0], v)[None]
    else:
        out = jnp.einsum("tkgs,skd->tkgd", weight, v, preferred_element_type=wide)
    some = total > 0
    safe = jnp.where(some, total, 1)
    out = jnp.where(some, out / safe, 0).astype(q.dtype)
    lse = jnp.where(some, top + jnp.log(safe), -jnp.inf)
    return out.reshape(q.shape), lse.reshape(seq_len, num_heads)


def merge(
    first: tuple[Float[Array, "seq_len num_heads head_dim"], Float[Array, "seq_len num_heads"]],
    second: tuple[Float[Array, "seq_len num_heads head_dim"], Float[Array, "seq_len num_heads"]],
) -> Float[Array, "seq_len num_heads head_dim"]:
    """Joins attention over two disjoint sets of keys; each query sees at least one key of `first`."""
    (out_1, lse_1), (out_2, lse_2) = first, second
    # The share of the second set, exactly 0 where its lse is -inf, and so is its derivative.
    none = jnp.isneginf(lse_2)
    share = jnp.where(none, 0, jax.nn.sigmoid(jnp.where(none, 0, lse_2) - lse_1))[..., None]
    wide_1, wide_2 = out_1.astype(share.dtype), out_2.astype(share.dtype)
    return (wide_1 + share * (wide_2 - wide_1)).astype(out_1.dtype)
