"""Local attention over a mesh of devices: each shard of the sequence is sent one window of its past's keys and values.

Heads are independent and split with no communication but for the gradient of keys and values that several heads
share, which is a sum over them.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from griffin_kernels.halo import at_the_end, halo
from griffin_kernels.local_attention.heads import check_heads, shares_keys
from griffin_kernels.local_attention.xla import attend
from griffin_kernels.mesh import axes_of, check_spec, shard_map, shards_of


def sharded_local_attention(
    q: Float[Array, "seq_len num_heads head_dim"],
    k: Float[Array, "seq_len kv_heads head_dim"],
    v: Float[Array, "seq_len kv_heads head_dim"],
    lookback: Int[Array, " seq_len"],
    *,
    window_size: int,
    mesh: Mesh | AbstractMesh | None = None,
    spec: PartitionSpec,
) -> tuple[Float[Array, "seq_len num_heads head_dim"], Float[Array, "seq_len num_heads"]]:
    """Runs `local_attention` with its arrays split over a mesh: the same values and gradients.

    Call it inside of `jax.vmap(..., spmd_axis_name="data")` for a batch. A window may be longer than a shard.

    Args:
      q: As in `local_attention`.
      k: As in `local_attention`, one for each query; heads are split like those of `q` where they divide, and lie whole
        on every shard where they do not.
      v: As `k`.
      lookback: As in `local_attention`; split as the sequence is.
      window_size: As in `local_attention`.
      mesh: The mesh; None takes that of `jax.set_mesh`.
      spec: How `q` lies, such as `P("sequence", "model", None)`; a head is never split.

    Returns:
      As `local_attention`, placed like `q`. A length that does not divide is padded, which costs a copy.

    Raises:
      ValueError: As `local_attention`, or if `spec` does not fit `q` and the mesh, or some shard's heads would read a
        part of several groups.
    """
    check_heads(q, k)
    mesh = check_spec("sharded_local_attention", mesh, spec, "q", q.shape, uneven=(0,))
    time, heads, within = spec
    if axes_of(within):
        raise ValueError(f"sharded_local_attention cannot split a head: got {spec}. Write None for head_dim.")
    if k.shape[0] != q.shape[0]:
        raise ValueError(
            f"sharded_local_attention needs one key for each query: got {k.shape[0]} keys, {q.shape[0]} queries."
        )
    seq_len, (num_heads, kv_heads) = q.shape[0], (q.shape[1], k.shape[1])
    shards, head_shards = shards_of(mesh, time), shards_of(mesh, heads)
    split = kv_heads % head_shards == 0
    own, group = num_heads // head_shards, num_heads // kv_heads
    if not shares_keys(num_heads, kv_heads, head_shards):
        raise ValueError(
            f"sharded_local_attention splits {num_heads} heads over {head_shards} shards: {own} on a shard are no part "
            f"of one group of {group} that shares keys. Leave heads whole with None, or choose another {kv_heads=}."
        )
    if window_size < 1:
        raise ValueError(
            f"sharded_local_attention needs a window of at least the token itself: got {window_size=}."
        )
    if seq_len == 0:
        return q, jnp.zeros(q.shape[:2], np.promote_types(q.dtype, jnp.float32))
    rows = min(window_size, seq_len) - 1 if shards > 1 else 0

    def body(q, k, v, lookback):
        if not split:
            first = jax.lax.axis_index(axes_of(heads)) * own // group
            k, v = (jax.lax.dynamic_slice_in_dim(z, first, 1, axis=1) for z in (k, v))
        if rows:
            # Zeros stand before the first shard's, and no query looks back that far.
            start = jax.lax.axis_index(axes_of(time)) * q.shape[0]
            lookback = jnp.minimum(lookback, start + jnp.arange(q.shape[0], dtype=lookback.dtype))
            # In one piece, so that it is one collective.
            both = halo(jnp.concatenate([k[-rows:], v[-rows:]], axis=-1), rows, axes_of(time), shards)
            k, v = (jnp.concatenate(z) for z in zip(jnp.split(both, 2, axis=-1), (k, v), strict=True))
        return attend(q, k, v, lookback, window_size)

    keys = PartitionSpec(time, heads if split else None, None)
    in_specs, out_specs = (spec, keys, keys, PartitionSpec(time)), (spec, PartitionSpec(time, heads))
    arrays = [at_the_end(z, -seq_len % shards) for z in (q, k, v, lookback)]
    out, lse = shard_map(body, mesh, in_specs, out_specs)(*arrays)
    return out[:seq_len], lse[:seq_len]
