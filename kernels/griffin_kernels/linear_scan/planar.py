"""Complex arrays as a pair of real ones."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array


class Planar(NamedTuple):
    """A complex array as its real and imaginary parts, two real arrays of one shape and dtype.

    Accelerators have no fast complex dtype, and casts of one silently drop the imaginary part, so
    complex dtypes never enter a kernel.
    """

    re: Array
    im: Array

    def __mul__(self, other: "Planar") -> "Planar":  # pyright: ignore[reportIncompatibleMethodOverride]
        """The complex product."""
        return Planar(self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re)

    def __add__(self, other: "Planar") -> "Planar":  # pyright: ignore[reportIncompatibleMethodOverride]
        """The complex sum (not tuple concatenation)."""
        return Planar(self.re + other.re, self.im + other.im)

    def conj(self) -> "Planar":
        """The complex conjugate."""
        return Planar(self.re, -self.im)


def unit_like(h: "Array | Planar") -> "Array | Planar":
    """Ones of the shape and dtype of h; `1 + 0i` of a complex array."""
    return Planar(jnp.ones_like(h.re), jnp.zeros_like(h.im)) if isinstance(h, Planar) else jnp.ones_like(h)
