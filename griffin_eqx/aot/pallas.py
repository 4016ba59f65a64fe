"""What a Pallas call moves, from its blocks, and what it declares to move. Runs in the compiler's environment."""

import contextlib
import functools
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.extend
import numpy as np
from jax._src.pallas import pallas_call as internal  # the pinned JAX's; nothing public shows a call's blocks
from jax.interpreters import mlir

_seen: dict[str, dict[str, Any]] = {}


def _observed_lowering(context: Any, *operands: Any, **parameters: Any) -> Any:
    estimate = parameters["cost_estimate"]
    _seen[parameters["name"]] = {
        "name": parameters["name"],
        "declared_bytes": estimate.bytes_accessed if estimate else None,
        "block_bytes": block_bytes(parameters["grid_mapping"]),
    }
    return internal._pallas_call_lowering(context, *operands, **parameters)


mlir.register_lowering(internal.pallas_call_p, _observed_lowering)


@contextlib.contextmanager
def observed_calls() -> Iterator[dict[str, dict[str, Any]]]:
    """Collects every Pallas call that is lowered inside: by name, the bytes that it declares and moves.

    A kernel may be traced only when its program is lowered, so a program's jaxpr does not show them all.
    """
    _seen.clear()
    yield _seen


def block_bytes(grid_mapping: Any) -> list[int] | None:
    """Bytes that the pipeline moves between memory and chip: a block whenever its index changes.

    Returns:
      For each operand and each output; None if one is left in memory for the kernel to fetch by itself, or if the
      blocks are known only when the program runs.
    """
    if grid_mapping.num_index_operands or grid_mapping.num_dynamic_grid_bounds:
        return None
    moved = []
    for mapping in grid_mapping.block_mappings:
        space = str(getattr(mapping.transformed_block_aval, "memory_space", "")).lower()
        if "any" in space or "hbm" in space:
            return None
        array = mapping.array_aval
        sizes = [getattr(size, "block_size", 1) for size in mapping.block_shape]
        indices = np.frombuffer(_indices(grid_mapping.grid, _Map(mapping.index_map_jaxpr)), np.int32)
        indices = indices.reshape(-1, len(sizes))
        changes = np.ones(len(indices), bool)
        changes[1:] = (indices[1:] != indices[:-1]).any(axis=1)
        # The last block of an axis may stand out over its end.
        extents = np.minimum(sizes, np.asarray(array.shape) - indices[changes] * sizes)
        moved.append(int(extents.prod(axis=1, dtype=np.int64).sum()) * array.dtype.itemsize)
    return moved


class _Map:
    """An index map, equal to others that read alike, so that each is evaluated once."""

    def __init__(self, jaxpr: Any):
        self.jaxpr = jaxpr

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Map) and str(self.jaxpr) == str(other.jaxpr)

    def __hash__(self) -> int:
        return hash(str(self.jaxpr))


@functools.cache
def _indices(grid: tuple[int, ...], index_map: _Map) -> bytes:
    """The block's index at every grid step, in the order of the grid, as int32."""
    steps = np.array(list(itertools.product(*map(range, grid))), np.int32).reshape(-1, len(grid))
    function = jax.vmap(jax.extend.core.jaxpr_as_fun(index_map.jaxpr), axis_size=len(steps))
    columns = function(*steps.T)
    return (
        np.stack([np.broadcast_to(column, len(steps)) for column in columns], axis=1)
        .astype(np.int32)
        .tobytes()
    )
