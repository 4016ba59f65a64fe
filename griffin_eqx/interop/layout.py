"""How a foreign format lays out the tensors of a model: one table, read in both directions.

A row says which of our tensors become which foreign one, and by what change. Writing goes through the table from
left to right, reading from right to left, so that there is no second table that could fall out of step. Changes
move, join, cut and negate; none of them rounds, so that every way round is bit for bit the same.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from griffin_eqx.errors import WeightsError
from griffin_eqx.interop.tensor_file import TensorSpec
from griffin_eqx.nn.embedding import ROW_MULTIPLE

Shape = tuple[int, ...]


class Change(NamedTuple):
    """What makes foreign tensors of ours, and the way back.

    Attributes:
      shape: The foreign shape, of the shapes of ours.
      out: The foreign array, of our arrays.
      back: Our arrays, of the foreign one.
    """

    shape: Callable[[Sequence[Shape]], Shape]
    out: Callable[[Sequence[np.ndarray]], np.ndarray]
    back: Callable[[np.ndarray], Sequence[np.ndarray]]


SAME = Change(lambda s: s[0], lambda a: a[0], lambda z: [z])
NEGATED = Change(lambda s: s[0], lambda a: -a[0], lambda z: [-z])
"""`a_param`: ours is Lambda of `sigmoid(Lambda)`, theirs goes through `-softplus`."""

TRANSPOSED = Change(lambda s: s[0][::-1], lambda a: a[0].T, lambda z: [z.T])
"""Torch keeps outputs first, we keep inputs first."""

REVERSED = Change(lambda s: s[0], lambda a: a[0][::-1], lambda z: [z[::-1]])
"""A convolution's rows: ours count back from the token itself, theirs end with it."""

TORCH_CONV = Change(
    lambda s: (s[0][1], 1, s[0][0]), lambda a: a[0][::-1].T[:, None], lambda z: [z[:, 0].T[::-1]]
)
"""The same with torch's layout for depthwise convolutions: channels, 1, tokens."""

JOINED = Change(lambda s: (2, *s[0]), lambda a: np.stack(a), lambda z: [z[0], z[1]])
"""Both matrices into the MLP as one: the gated branch first."""

JOINED_BIAS = Change(
    lambda s: (2, 1, 1, *s[0]), lambda a: np.stack(a)[:, None, None], lambda z: [z[0, 0, 0], z[1, 0, 0]]
)
"""Their biases, with room for batch and time."""


def rows(vocab_size: int) -> Change:
    """The embedding without its filler, which comes back as zeros."""

    def filled(array: np.ndarray) -> np.ndarray:
        filler = -len(array) % ROW_MULTIPLE
        return np.pad(array, ((0, filler), (0, 0))) if filler else array

    return Change(lambda s: (vocab_size, s[0][1]), lambda a: a[0][:vocab_size], lambda z: [filled(z)])


class Row(NamedTuple):
    """A foreign tensor, and ours that it is made of."""

    theirs: str
    ours: tuple[str, ...]
    change: Change


class Layout:
    """The table of one model.

    Attributes:
      rows: Every foreign tensor by its name.
      specs: Shape and dtype of each.

    Args:
      table: The rows, by full names.
      ours: Our tensors, those included that this model may do without.
      decay: The dtype that foreign tensors have where ours are `NEGATED`; theirs when None.
    """

    def __init__(
        self, table: Sequence[Row], ours: Mapping[str, TensorSpec], *, decay: np.dtype | None = None
    ):
        self.rows = {row.theirs: row for row in table}
        self._home = {name: (row, part) for row in table for part, name in enumerate(row.ours)}
        if missing := sorted(set(ours) ^ set(self._home)):
            raise WeightsError(
                f"The format has no place for {', '.join(missing[:5])}.\n  in the model\n"
                "  Keep it in the griffin format."
            )
        self.specs: dict[str, TensorSpec] = {}
        for row in table:
            parts = [ours[name] for name in row.ours]
            dtype = (decay or parts[0].dtype) if row.change is NEGATED else parts[0].dtype
            self.specs[row.theirs] = TensorSpec(
                tuple(row.change.shape([part.shape for part in parts])), dtype
            )

    def home(self, name: str) -> Row:
        """The row that one of our tensors is in."""
        return self._home[name][0]

    def writer(
        self,
        read: Callable[[str], np.ndarray],
        there: Mapping[str, TensorSpec],
        ours: Mapping[str, TensorSpec],
        *,
        rounding: bool,
    ) -> Callable[[str], np.ndarray]:
        """Gives foreign tensors by name.

        Args:
          read: Gives one of our tensors.
          there: Those that the model has; what it does without is zero.
          ours: Their specs, and those of what it does without.
          rounding: Whether values may be rounded to the foreign dtype.
        """

        def part(name: str) -> np.ndarray:
            return read(name) if name in there else np.zeros(ours[name].shape, ours[name].dtype)

        def write(theirs: str) -> np.ndarray:
            row, spec = self.rows[theirs], self.specs[theirs]
            array = row.change.out([part(name) for name in row.ours])
            if array.dtype == spec.dtype:
                return array
            narrow = array.astype(spec.dtype)
            if not rounding and not np.array_equal(narrow.astype(array.dtype), array, equal_nan=True):
                raise WeightsError(
                    f"{row.ours[0]} does not fit into {spec.dtype} without rounding.\n  {theirs}\n"
                    "  Say that it may be rounded: --dtype."
                )
            return narrow

        return write

    def reader(
        self, read: Callable[[str], np.ndarray], ours: Mapping[str, TensorSpec]
    ) -> Callable[[str], np.ndarray]:
        """Gives our tensors by name.

        Args:
          read: Gives a foreign tensor.
          ours: What our tensors are to be.
        """

        def back(name: str) -> np.ndarray:
            row, part = self._home[name]
            return np.asarray(row.change.back(read(row.theirs))[part]).astype(ours[name].dtype, copy=False)

        return back
