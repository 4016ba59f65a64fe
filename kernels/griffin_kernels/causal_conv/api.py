"""The public function, in plain JAX: XLA makes one pass over memory of it."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def causal_conv(
    x: Float[Array, "seq_len width"],
    weight: Float[Array, "conv_width width"],
    bias: Float[Array, " width"] | None,
    positions: Int[Array, " seq_len"],
    before: Float[Array, "conv_history width"] | None = None,
) -> Float[Array, "seq_len width"]:
    """Convolves each channel over time: `y_t = bias + sum_k weight[k] * x_{t-k}` (Griffin, section 2.3).

    Token t sees `min(conv_width - 1, positions[t])` earlier ones.

    Args:
      x: Inputs; y has their dtype.
      weight: One filter a channel, `weight[0]` for the token itself; cast to the dtype of `x`.
      bias: One number a channel, or none.
      positions: How many tokens of its document precede each token.
      before: The `conv_width - 1` inputs before the first; zeros when None.

    >>> x = jnp.arange(1.0, 4.0)[:, None]
    >>> causal_conv(x, jnp.ones((2, 1)), None, jnp.array([0, 1, 0]))[:, 0].tolist()
    [1.0, 3.0, 3.0]
    """
    seq_len, conv_width = x.shape[0], weight.shape[0]
    if before is None:
        before = jnp.zeros((conv_width - 1, x.shape[1]), x.dtype)
    extended = jnp.concatenate([before.astype(x.dtype), x])
    weight = weight.astype(x.dtype)
    y = weight[:1] * x
    for k in range(1, conv_width):
        earlier = extended[conv_width - 1 - k : conv_width - 1 - k + seq_len]
        y = y + jnp.where((positions >= k)[:, None], weight[k : k + 1] * earlier, 0)
    return y if bias is None else y + bias.astype(x.dtype)[None]
