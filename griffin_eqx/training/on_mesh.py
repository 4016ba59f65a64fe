"""Where a run's arrays lie: on one device, or over a mesh."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool

from griffin_eqx.config import Config
from griffin_eqx.data import Batch
from griffin_eqx.mesh import MeshError, MeshShape, meshes
from griffin_eqx.placement import check_batch
from griffin_eqx.sharding import divided, make_mesh, shardings
from griffin_eqx.training.global_arrays import owned, spread
from griffin_eqx.training.objective import TokenBatch
from griffin_eqx.training.step import TrainState


class OnMesh:
    """Places states and batches.

    Parameters, optimizer state and carried caches lie as their annotations say; rows of a batch are split over
    `data` and their tokens over `sequence`, the last of which may be padding. Over several processes the mesh has the
    devices of all; each process has the whole batch in its own memory, and puts its pieces on its own devices.

    Args:
      shape: The mesh; None leaves everything on the default device.
      config: Of the run.
      devices: Those of the mesh; this program's when None.

    Raises:
      MeshError: If there are not as many devices, or a batch cannot be divided.
    """

    def __init__(self, shape: MeshShape | None, config: Config, devices: Sequence[Any] | None = None):
        self._mesh = None
        if shape is not None:
            check_batch(config, shape)
            if devices is None:
                _check_processes(shape)
            self._mesh = make_mesh(shape, devices)

    def lay(self, state: TrainState) -> TrainState:
        """The state with every array in its place; works inside of programs, too.

        Args:
          state: Its arrays may be NumPy's; of several processes each has all of them.

        Raises:
          MeshError: If the mesh cannot divide an array.
        """
        arrays, static = eqx.partition(state, _is_array)
        if self._mesh is None:
            return eqx.combine(owned(arrays), static)
        put = jax.lax.with_sharding_constraint if _is_traced(arrays) else _spread_tree
        return eqx.combine(put(arrays, self._places(arrays)), static)

    def _places(self, arrays: Any) -> Any:
        """The sharding of every array of a state."""
        assert self._mesh is not None
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arrays)
        cache = shardings(shapes.cache, self._mesh, leading=("batch", "num_layers"))
        rest = eqx.tree_at(_cache, shapes, None, is_leaf=_is_none)
        return eqx.tree_at(_cache, shardings(rest, self._mesh), cache, is_leaf=_is_none)

    def in_effect(self) -> AbstractContextManager[Any]:
        """What model, step and evaluation run in: their kernels split their work over the mesh."""
        return nullcontext() if self._mesh is None else jax.set_mesh(self._mesh)

    def built(self, build: Callable[[], TrainState]) -> TrainState:
        """A new state in its place: laid inside of the program, so that no device ever holds more than its part."""
        return build() if self._mesh is None else eqx.filter_jit(lambda: self.lay(build()))()

    def batch(self, batch: Batch) -> TokenBatch:
        """A batch on the devices."""
        if self._mesh is None:
            return TokenBatch(*jax.device_put(tuple(batch)))
        mesh = self._mesh
        missing = -batch.tokens.shape[1] % mesh.shape["sequence"]

        def put(array, filler):
            if array.ndim == 2:
                array = np.pad(array, [(0, 0), (0, missing)], constant_values=filler)
            spec = PartitionSpec(*("data", "sequence")[: array.ndim])
            return spread(array, NamedSharding(mesh, spec))

        # Padding stands behind `length`, and asks for nothing.
        return TokenBatch(*map(put, batch, (0, -1, 0, 0)))

    def any_batch(self, batch: Batch) -> TokenBatch:
        """A batch that the mesh need not divide, on the devices: what it cannot divide is whole on each."""
        if self._mesh is None:
            return TokenBatch(*map(jnp.asarray, batch))
        mesh = self._mesh

        return TokenBatch(
            *(spread(array, divided(array.shape, ("data", "sequence"), mesh)) for array in batch)
        )

    def rows(self, continues: Bool[np.ndarray, " batch"] | Bool[Array, " batch"]) -> Bool[Array, " batch"]:
        """One value a row, on the devices."""
        if self._mesh is None:
            return jnp.asarray(continues)
        return spread(continues, NamedSharding(self._mesh, PartitionSpec("data")))


def _check_processes(shape: MeshShape) -> None:
    """Of several processes each must have a part in the mesh, or some would wait for ever."""
    count, there = jax.process_count(), jax.device_count()
    if count > 1 and shape.num_devices != there:
        raise MeshError(
            f"{count} processes train over all of their devices: the mesh {shape} has {shape.num_devices}, they have "
            f"{there}.\n  --mesh {shape}\n  Meshes of {there}: {'  '.join(map(str, meshes(there)[:4]))}"
        )


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, np.ndarray)


def _cache(state: Any) -> Any:
    return state.cache


def _is_none(leaf: Any) -> bool:
    return leaf is None


def _spread_tree(tree: Any, places: Any) -> Any:
    return jax.tree.map(spread, tree, places)


def _is_traced(tree: Any) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))
