"""What public functions refuse, in the same words: each names the function, the argument, and what would be right."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp

Shape = tuple[int, ...]


def check_floating(function: str, x_shape: Shape, arrays: Mapping[str, Any]) -> None:
    """Checks that arrays are real and floating, and that x is a sequence.

    Raises:
      TypeError: For an array of integers, booleans or complex numbers.
      ValueError: If `x_shape` has no axes for time and channels.
    """
    for name, z in arrays.items():
        if not jnp.issubdtype(z.dtype, jnp.floating):
            raise TypeError(f"{function} needs real floating arrays: got {name} of dtype {z.dtype}.")
    if len(x_shape) < 2:
        raise ValueError(f"{function} needs x of shape [..., seq_len, width]: got {x_shape}.")


def check_shapes(function: str, x_shape: Shape, expected: Mapping[str, tuple[Any, Shape]]) -> None:
    """Checks that arrays, None left out, fit x.

    Raises:
      ValueError: For the first that does not.
    """
    for name, (z, shape) in expected.items():
        if z is not None and z.shape != shape:
            raise ValueError(f"{function} needs {name} of shape {shape}: got {z.shape}, with x of {x_shape}.")


def check_implementation(function: str, implementation: str | None, known: Iterable[str]) -> None:
    """Checks a name, where one is given.

    Raises:
      ValueError: If there is no such implementation.
    """
    known = tuple(known)
    if implementation is not None and implementation not in known:
        raise ValueError(f"{function} has no {implementation=}: choose one of {', '.join(known)}, or None.")
