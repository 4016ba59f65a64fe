"""Where a run's arrays lie: on one device, or over a mesh."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool

from griffin_eqx.config import Config
from griffin_eqx.data import Batch
from griffin_eqx.mesh import MeshShape
from griffin_eqx.placement import check_batch
from griffin_eqx.sharding import make_mesh, shardings
from griffin_eqx.training.objective import TokenBatch
from griffin_eqx.training.step import TrainState


class OnMesh:
    """Places states and batches.

    Parameters, optimizer state and carried caches lie as their annotations say; rows of a batch are split over
    `data` and their tokens over `sequence`, the last of which may be padding.

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
            self._mesh = make_mesh(shape, devices)

    def lay(self, state: TrainState) -> TrainState:
        """The state with every array in its place; works inside of programs, too.

        Raises:
          MeshError: If the mesh cannot divide an array.
        """
        if self._mesh is None:
            return state
        arrays, static = eqx.partition(state, eqx.is_array)
        put = jax.lax.with_sharding_constraint if _is_traced(arrays) else jax.device_put
        rest = TrainState(arrays.model, arrays.optimizer, arrays.step, arrays.skipped, None)
        rest = put(rest, shardings(rest, self._mesh))
        cache = put(arrays.cache, shardings(arrays.cache, self._mesh, leading=("batch", "num_layers")))
        laid = TrainState(rest.model, rest.optimizer, rest.step, rest.skipped, cache)
        return eqx.combine(laid, static)

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
            return jax.device_put(
                array, NamedSharding(mesh, PartitionSpec(*("data", "sequence")[: array.ndim]))
            )

        # Padding stands behind `length`, and asks for nothing.
        return TokenBatch(*map(put, batch, (0, -1, 0, 0)))

    def rows(self, continues: Bool[np.ndarray, " batch"] | Bool[Array, " batch"]) -> Bool[Array, " batch"]:
        """One value a row, on the devices."""
        if self._mesh is None:
            return jax.numpy.asarray(continues)
        return jax.device_put(continues, NamedSharding(self._mesh, PartitionSpec("data")))


def _is_traced(tree: Any) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))
