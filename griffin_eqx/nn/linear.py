"""Matrix products: dense and block-diagonal."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from griffin_kernels.rows import block_matmul
from jaxtyping import Array, Float, PRNGKeyArray

from griffin_eqx.nn.init import normal
from griffin_eqx.nn.int8 import Int8Matrix, product


class Linear(eqx.Module):
    """`y = x @ weight + bias` on the last axis, in the dtype of `x`.

    Attributes:
      weight: The matrix, inputs first; of 8 bits in a model that was made smaller.
      bias: None for a layer without.
      axes: The logical names of the weight's two axes, by which it is placed on a mesh.
    """

    weight: Float[Array, "in_features out_features"] | Int8Matrix
    bias: Float[Array, " out_features"] | None
    axes: tuple[str, str] = eqx.field(static=True)

    @classmethod
    def init(
        cls,
        in_features: int,
        out_features: int,
        *,
        axes: tuple[str, str],
        bias: bool = False,
        gain: float = 1.0,
        dtype: Any = jnp.float32,
        key: PRNGKeyArray,
    ) -> "Linear":
        """Draws weights of variance `gain / in_features`; a bias starts at zero."""
        weight = normal(key, (in_features, out_features), gain / in_features, dtype)
        return cls(weight, jnp.zeros(out_features, dtype) if bias else None, axes)

    def __call__(self, x: Float[Array, "*leading in_features"]) -> Float[Array, "*leading out_features"]:
        """Applies the layer."""
        y = product(x, self.weight)
        return y if self.bias is None else y + jnp.broadcast_to(self.bias.astype(x.dtype), y.shape)


class BlockDiagonalLinear(eqx.Module):
    """A linear layer whose matrix is block-diagonal, as the gates of Griffin (section 4.1).

    Block g maps its own `block_in` inputs to its own `block_out` outputs, so a shard of the channels
    computes its own gates.
    """

    weight: Float[Array, "gate_blocks block_in block_out"]
    bias: Float[Array, "gate_blocks block_out"]

    @classmethod
    def init(
        cls, in_features: int, out_features: int, blocks: int, *, dtype: Any = jnp.float32, key: PRNGKeyArray
    ) -> "BlockDiagonalLinear":
        """Draws weights of variance `1 / block_in`; the bias starts at zero.

        Raises:
          ValueError: If a width is no multiple of `blocks`.
        """
        if blocks < 1 or in_features % blocks or out_features % blocks:
            raise ValueError(f"{in_features=} and {out_features=} must be multiples of {blocks=}.")
        block_in, block_out = in_features // blocks, out_features // blocks
        weight = normal(key, (blocks, block_in, block_out), 1 / block_in, dtype)
        return cls(weight, jnp.zeros((blocks, block_out), dtype))

    def __call__(self, x: Float[Array, "seq_len in_features"]) -> Float[Array, "seq_len out_features"]:
        """Applies the layer; the result is in `promote_types(x.dtype, float32)`, ready for a gate.

        The products are in that dtype too: a gate near 0 or 1 would lose its decay to a rounded argument.
        """
        wide = np.promote_types(x.dtype, jnp.float32)
        y = block_matmul(x.astype(wide), self.weight.astype(wide))
        return y + self.bias.astype(wide).reshape(1, -1)
