"""The axes of a device mesh, and how a command names them. Imports no JAX."""

import math
from typing import NamedTuple

from griffin_eqx.errors import GriffinError
from griffin_eqx.pattern import nearest

AXES = ("data", "sequence", "model")
"""The axes of every mesh, outermost first: neighbours along `model`, which talk most, lie nearest to each other."""


class MeshError(GriffinError, ValueError):
    """A mesh that cannot be read, or that the arrays cannot be placed on."""


class MeshShape(NamedTuple):
    """How many devices lie along each axis.

    Attributes:
      data: Over rows of a batch, and over the `width` of parameters and optimizer state.
      sequence: Over the tokens of a row.
      model: Over heads, channels of recurrences and MLPs, and the vocabulary.
    """

    data: int = 1
    sequence: int = 1
    model: int = 1

    @property
    def num_devices(self) -> int:
        """All devices of the mesh."""
        return math.prod(self)

    def __str__(self) -> str:
        named = [f"{axis}={size}" for axis, size in zip(AXES, self, strict=True) if size > 1]
        return ",".join(named) or "data=1"


def parse_mesh(text: str) -> MeshShape:
    """Reads `data=2,model=4`; axes that are left out have one device.

    Raises:
      MeshError: If an axis is unknown or named twice, or a size is no positive whole number.

    >>> parse_mesh("data=2, model=4")
    MeshShape(data=2, sequence=1, model=4)
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        axis, equals, size = (piece.strip() for piece in part.partition("="))
        if axis not in AXES:
            guess = nearest(axis, AXES)
            hint = f"Did you mean {guess}?" if guess else f"The axes are {', '.join(AXES)}."
            raise MeshError(f"There is no mesh axis {axis!r}.\n  --mesh {text}\n  {hint}")
        if axis in sizes:
            raise MeshError(f"The mesh axis {axis} is named twice.\n  --mesh {text}\n  Name each once.")
        if (
            not equals
            or not size.isascii()
            or not size.isdecimal()
            or not 1 <= len(size) <= 6
            or not int(size)
        ):
            raise MeshError(
                f"The mesh axis {axis} needs a number of devices: got {size!r}.\n  --mesh {text}\n"
                "  Write it as data=2,sequence=2,model=2."
            )
        sizes[axis] = int(size)
    return MeshShape(**sizes)


def meshes(num_devices: int) -> list[MeshShape]:
    """Every shape with that many devices.

    >>> len(meshes(8))
    10
    """
    return [
        MeshShape(data, sequence, num_devices // data // sequence)
        for data in _divisors(num_devices)
        for sequence in _divisors(num_devices // data)
    ]


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
