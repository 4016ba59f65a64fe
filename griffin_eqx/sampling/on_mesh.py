"""Where an engine's model and its documents lie: on one device, or over a mesh."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from griffin_eqx.mesh import MeshError, MeshShape
from griffin_eqx.model import LanguageModel
from griffin_eqx.sampling.session import ROWS, State, empty_state
from griffin_eqx.sharding import divided, fits, hold, lay, make_mesh, place, refusal

_ROOM = 16
"""Tokens of the caches by which a mesh is judged: what it splits of them does not depend on their length."""


class OnMesh:
    """Places a model, and the documents that it reads and writes.

    Parameters and caches lie as their annotations say; rows, the scores of their next tokens included, over `data`.
    A prompt's tokens are split over `sequence`. One token cannot be: in writing, the devices along that axis all do
    the same.

    Args:
      shape: The mesh; None leaves everything where it is.
      model: The model, laid out for decoding.

    Raises:
      MeshError: If there are not as many devices, or the mesh cannot divide a parameter or a cache.
    """

    def __init__(self, shape: MeshShape | None, model: LanguageModel):
        self._shape, self._mesh = shape, None
        if shape is not None:
            self._mesh = make_mesh(shape)
            place(model, shape)
            place(_documents(model, shape.data), shape, leading=ROWS)

    def model(self, model: LanguageModel) -> LanguageModel:
        """The model in its place."""
        return model if self._mesh is None else lay(model, self._mesh)

    def in_effect(self) -> AbstractContextManager[Any]:
        """What programs are called in: their kernels split their work over the mesh."""
        return nullcontext() if self._mesh is None else jax.set_mesh(self._mesh)

    def empty(self, model: LanguageModel, rows: int, max_seq_len: int) -> State:
        """Documents of no tokens yet; no device ever holds more than its part."""
        if self._mesh is None:
            return empty_state(model, rows, max_seq_len)
        with self.in_effect():
            return _empty(model, rows, max_seq_len)

    def state(self, state: State) -> State:
        """Documents in their place, wherever they come from: another mesh, one device, a file."""
        if self._mesh is None:
            return state
        return lay(state, self._mesh, leading=ROWS, rows=state.lengths.shape[0])

    def rows(self, tree: Any) -> Any:
        """Arrays of one entry a row."""
        return jax.tree.map(lambda z: self._put(z, "data"), tree)

    def tokens(self, tokens: Any) -> Any:
        """An array of one entry a token, `[batch, chunk]`."""
        return self._put(tokens, "data", "sequence")

    def check_rows(self, model: LanguageModel, rows: int, what: str) -> None:
        """Checks that the mesh divides what is written at once.

        Args:
          model: The model.
          rows: How many there are.
          what: What they are.

        Raises:
          MeshError: If it does not.
        """
        shape = self._shape
        if shape is None or rows % shape.data == 0:
            return

        def works(other: MeshShape) -> bool:
            return (
                rows % other.data == 0
                and fits(model, other)
                and fits(_documents(model, rows), other, leading=ROWS)
            )

        raise MeshError(refusal([f"{what}: {rows} over data={shape.data}"], shape, works))

    def _put(self, z: Any, *axes: str) -> Any:
        mesh = self._mesh
        if mesh is None:
            return jnp.asarray(z)
        return jax.device_put(z, divided(z.shape, axes, mesh))


def _documents(model: LanguageModel, rows: int) -> State:
    return eqx.filter_eval_shape(empty_state, model, rows, _ROOM)


@eqx.filter_jit
def _empty(model: LanguageModel, rows: int, max_seq_len: int) -> State:
    return hold(empty_state(model, rows, max_seq_len), leading=ROWS, rows=rows)
