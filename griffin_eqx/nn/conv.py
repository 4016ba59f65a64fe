"""The short causal convolution in front of the recurrence."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from griffin_kernels.causal_conv import causal_conv
from jaxtyping import Array, Float, PRNGKeyArray

from griffin_eqx.block import SequenceLayout
from griffin_eqx.nn.init import normal


class CausalConv1D(eqx.Module):
    """A depthwise convolution over time: `y_t = bias + sum_k weight[k] * x_{t-k}` (Griffin, section 2.3).

    A token sees `min(conv_width - 1, positions[t])` earlier tokens; the history that is carried between
    chunks holds the inputs of the last `conv_width - 1` tokens, zero where the document is shorter.
    """

    weight: Float[Array, "conv_width lru_width"]
    bias: Float[Array, " lru_width"] | None

    @classmethod
    def init(
        cls, width: int, conv_width: int, *, bias: bool = False, dtype: Any = jnp.float32, key: PRNGKeyArray
    ) -> "CausalConv1D":
        """Draws weights of variance `0.01 / conv_width`, as RecurrentGemma's code does."""
        weight = normal(key, (conv_width, width), 0.01 / conv_width, dtype)
        return cls(weight, jnp.zeros(width, dtype) if bias else None)

    def init_history(self, dtype: Any) -> Float[Array, "conv_history lru_width"]:
        """The history before the first token: zeros."""
        return jnp.zeros((self.weight.shape[0] - 1, self.weight.shape[1]), dtype)

    def __call__(
        self,
        x: Float[Array, "seq_len lru_width"],
        layout: SequenceLayout,
        history: Float[Array, "conv_history lru_width"] | None,
    ) -> tuple[Float[Array, "seq_len lru_width"], Float[Array, "conv_history lru_width"] | None]:
        """Convolves one chunk.

        Args:
          x: Inputs; finite also at padding.
          layout: Positions and length of the chunk.
          history: The last inputs before the chunk, or None in training.

        Returns:
          `(y, history)`: the history after the chunk's last token, or None for None.
        """
        if history is None:
            return causal_conv(x, self.weight, self.bias, layout.positions), None
        before = history.astype(x.dtype)
        y = causal_conv(x, self.weight, self.bias, layout.positions, before)
        return y, self._next_history(jnp.concatenate([before, x]), layout, history.dtype)

    def _next_history(self, extended, layout, dtype):
        """The last inputs of the document that the chunk ends in: no padding, nothing of its predecessor."""
        conv_history = self.weight.shape[0] - 1
        recent = jax.lax.dynamic_slice_in_dim(extended, layout.length, conv_history)
        if layout.positions.shape[0] == 0:
            return recent.astype(dtype)
        # Rows count back from the last token, 0 for itself; an empty chunk keeps what there was.
        age = jnp.arange(conv_history)[::-1]
        last = layout.positions[jnp.maximum(layout.length - 1, 0)]
        own = (age <= last) | (layout.length == 0)
        return jnp.where(own[:, None], recent, 0).astype(dtype)
