"""The gated multi-layer perceptron of the residual block."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from griffin_eqx.nn.linear import Linear


class GatedMLP(eqx.Module):
    """GeGLU: `down(gelu(gate(x)) * up(x))` (Griffin, section 2.2; tanh form of GeLU).

    Two matrices and not one of double width: split afterwards, that would be re-laid out on every mesh.
    """

    gate: Linear
    up: Linear
    down: Linear

    @classmethod
    def init(
        cls,
        width: int,
        mlp_width: int,
        *,
        num_layers: int = 2,
        biases: bool = False,
        dtype: Any = jnp.float32,
        key: PRNGKeyArray,
    ) -> "GatedMLP":
        """Draws the weights; `down` with variance `2 / num_layers / mlp_width`."""
        gate_key, up_key, down_key = jax.random.split(key, 3)
        into, out_of = ("width", "mlp_width"), ("mlp_width", "width")
        return cls(
            Linear.init(width, mlp_width, axes=into, bias=biases, dtype=dtype, key=gate_key),
            Linear.init(width, mlp_width, axes=into, bias=biases, dtype=dtype, key=up_key),
            Linear.init(
                mlp_width, width, axes=out_of, bias=biases, gain=2 / num_layers, dtype=dtype, key=down_key
            ),
        )

    def __call__(self, x: Float[Array, "seq_len width"]) -> Float[Array, "seq_len width"]:
        """Applies the MLP to each token."""
        return self.down(jax.nn.gelu(self.gate(x), approximate=True) * self.up(x))

    def flops(self, seq_len: int) -> int:
        """Floating-point operations of one forward pass over `seq_len` tokens."""
        return 6 * seq_len * self.gate.weight.shape[0] * self.gate.weight.shape[1]
