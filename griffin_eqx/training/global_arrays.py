"""Arrays on their way between NumPy and the devices, of one process or of several that hold pieces of them."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped


def is_here(array: Any) -> bool:
    """Whether this process can read all of an array."""
    return not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated


def owned(tree: Any) -> Any:
    """A tree with copies on the default device in place of NumPy's arrays.

    No views of NumPy's memory: the step writes into the buffers of its state. And one copy each: `jnp.array` makes two.
    """
    return jax.tree.map(
        lambda z: jax.device_put(z, may_alias=False) if isinstance(z, np.ndarray) else z, tree
    )


def spread(array: Shaped[np.ndarray, "*shape"] | Array, sharding: NamedSharding) -> Array:
    """An array that every process has whole, laid over the devices of all: nothing is sent between them.

    As `owned`, never a view of NumPy's memory.
    """
    if sharding.is_fully_addressable or not is_here(array):
        return jax.device_put(array, sharding, may_alias=False if isinstance(array, np.ndarray) else None)
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: np.array(host[index]))


def on_host(tree: Any) -> Any:
    """A tree with NumPy arrays in place of JAX's; all processes must ask, and all get it."""
    return jax.tree.map(np.asarray, jax.device_get(jax.tree.map(_whole, tree)))


def rows_on_host(array: Any, axis: int) -> Iterator[np.ndarray]:
    """The parts of an array along an axis, one on each device at a time; all processes must ask for all of them."""
    for row in range(array.shape[axis]):
        yield np.array(_row(array, row, axis=axis, onto=_everywhere(array)))


def _whole(leaf: Any) -> Any:
    return leaf if is_here(leaf) else _copied(leaf, onto=_everywhere(leaf))


def _everywhere(array: Any) -> NamedSharding:
    assert isinstance(array.sharding, NamedSharding)
    return NamedSharding(array.sharding.mesh, PartitionSpec())


@partial(jax.jit, static_argnames="onto")
def _copied(array, *, onto):
    return jax.lax.with_sharding_constraint(array, onto)


@partial(jax.jit, static_argnames=("axis", "onto"))
def _row(array, row, *, axis, onto):
    part = jax.lax.dynamic_index_in_dim(array, row, axis, keepdims=False)
    return jax.lax.with_sharding_constraint(part, onto)
