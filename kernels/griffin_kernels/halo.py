"""The rows of time that a shard needs of the shards before it. For the body of a `jax.shard_map`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array


def halo(x: Array, rows: int, axes: tuple[str, ...], shards: int) -> Array:
    """The `rows` rows that stand before this shard's own, zeros where the sequence has none.

    Each comes straight from the shard that holds it, and nothing else is sent: one `ppermute` where a shard holds
    as many, and one more for each further shard.

    Args:
      x: This shard's rows, on the leading axis.
      rows: How many are wanted, of as many shards as it takes.
      axes: The mesh axes that the sequence is split over.
      shards: How many shards there are.
    """
    held = x.shape[0]
    absent = max(0, rows - held * (shards - 1))
    parts, wanted, distance = [], rows - absent, 1
    while wanted > 0:
        take = min(wanted, held)
        to = [(shard, shard + distance) for shard in range(shards - distance)]
        parts.append(jax.lax.ppermute(x[held - take :], axes, to))
        wanted, distance = wanted - take, distance + 1
    parts.append(jnp.zeros((absent, *x.shape[1:]), x.dtype))
    return jnp.concatenate(parts[::-1])


def at_the_end(x: Array, rows: int) -> Array:
    """`x` with rows of zeros behind it."""
    return jnp.pad(x, [(0, rows)] + [(0, 0)] * (x.ndim - 1)) if rows else x
