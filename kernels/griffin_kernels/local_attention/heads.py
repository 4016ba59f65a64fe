"""Which heads go together: with the key head that they read, and on which shard."""

from typing import Any

from jaxtyping import Array

from griffin_kernels.mesh import MODEL, splits_channels


def check_heads(q: Array, k: Array) -> None:
    """Raises unless every key head is read by as many heads as the others."""
    if q.shape[1] % k.shape[1]:
        raise ValueError(f"num_heads must be a multiple of kv_heads: got {q.shape[1]} and {k.shape[1]}.")


def shares_keys(num_heads: int, kv_heads: int, shards: int) -> bool:
    """Whether the heads of one of so many shards read whole key heads of their own, or are part of one group."""
    return kv_heads % shards == 0 or num_heads // kv_heads % (num_heads // shards) == 0


def splits_heads(mesh: Any, q: Array, k: Array) -> str | None:
    """The axis that heads are split over, if it divides them and no shard would read parts of several groups."""
    axis = splits_channels(mesh, q.shape[1])
    return axis if axis and shares_keys(q.shape[1], k.shape[1], mesh.shape[MODEL]) else None
