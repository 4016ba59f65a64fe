"""Weights of 8 bits: a matrix that takes a quarter of float32's memory and is widened where it is used."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from griffin_kernels.rows import narrow_matmul, rows_matmul
from jaxtyping import Array, Float, Int, Int8

from griffin_eqx.sharding import constrain

LARGEST = 127
"""Of a stored value: as far below zero as above, so that -128 is never used."""


class Int8Matrix(eqx.Module):
    """`values * scale`: integers of 8 bits, and what one step of them is worth, a number for each output channel.

    Only what is stored is narrow: products are computed in the dtype of what comes in, where every value is exact,
    and the scale is multiplied into the result. Wherever an array is expected, this becomes one in float32
    (`jnp.asarray`), so that a block may read a weight itself.

    Attributes:
      values: From -127 to 127, output channels first.
      scale: The largest value of a channel over 127.
      axes: The logical names of the two axes of `values`, by which they are placed on a mesh.
      inputs_first: Whether the matrix that this stands for is the transposed one, as that of a `Linear` is.
    """

    values: Int8[Array, "channels inputs"]
    scale: Float[Array, " channels"]
    axes: tuple[str, str] = eqx.field(static=True)
    inputs_first: bool = eqx.field(static=True)

    @classmethod
    def of(cls, matrix: Array, *, axes: tuple[str, str], inputs_first: bool) -> "Int8Matrix":
        """Rounds a matrix, or a stack of them with any leading axes.

        Args:
          matrix: What to round.
          axes: The names of its axes, in their order.
          inputs_first: Whether its columns are the output channels; otherwise its rows are.
        """
        if matrix.ndim > 2:
            return jax.vmap(lambda one: cls.of(one, axes=axes, inputs_first=inputs_first))(matrix)
        wide = matrix.astype(jnp.float32)
        wide, axes = (wide.T, (axes[1], axes[0])) if inputs_first else (wide, axes)
        scale = jnp.abs(wide).max(axis=1, initial=0) / LARGEST
        steps = jnp.round(wide / jnp.where(scale > 0, scale, 1)[:, None])
        values = jnp.clip(steps, -LARGEST, LARGEST).astype(jnp.int8)
        return cls(values, scale, axes, inputs_first)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the matrix."""
        *leading, channels, inputs = self.values.shape
        return (*leading, inputs, channels) if self.inputs_first else (*leading, channels, inputs)

    @property
    def ndim(self) -> int:
        """Of the matrix."""
        return self.values.ndim

    @property
    def size(self) -> int:
        """Of the matrix."""
        return self.values.size

    @property
    def T(self) -> Float[Array, "_ _"]:
        """The transposed matrix, widened."""
        return self.astype(jnp.float32).T

    def astype(self, dtype: Any) -> Float[Array, "_ _"]:
        """The matrix in a floating dtype."""
        wide = self.values.astype(jnp.float32) * self.scale[..., None]
        return (wide.swapaxes(-1, -2) if self.inputs_first else wide).astype(dtype)

    def __jax_array__(self) -> Float[Array, "_ _"]:
        return self.astype(jnp.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.astype(jnp.float32), dtype, copy=copy)

    def __getitem__(self, at: Any) -> Array:
        return self.astype(jnp.float32)[at]

    def row(self, index: Int[Array, "*leading"], dtype: Any) -> Float[Array, "*leading inputs"]:
        """The weights of some output channels; of an index outside, those of the first or last."""
        values, scale = (z.at[index].get(mode="clip") for z in (self.values, self.scale))
        return (values.astype(jnp.float32) * scale[..., None]).astype(dtype)

    def product(self, x: Float[Array, "*leading inputs"]) -> Float[Array, "*leading channels"]:
        """What all output channels make of `x`, in its dtype."""
        # What lies over `data` is gathered in 8 bits, and widened behind that.
        y = narrow_matmul(x, constrain(self.values, *self.axes))
        return (y * jnp.broadcast_to(self.scale.astype(y.dtype), y.shape)).astype(x.dtype)


def product(
    x: Float[Array, "*leading in_features"],
    weight: Float[Array, "in_features out_features"] | Int8Matrix,
) -> Float[Array, "*leading out_features"]:
    """`x @ weight` in the dtype of `x`, whatever the weight is stored as."""
    if isinstance(weight, Int8Matrix):
        return weight.product(x)
    return rows_matmul(x, weight.astype(x.dtype))
