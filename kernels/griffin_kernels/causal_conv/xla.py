"""The convolution on one device, in plain JAX: XLA makes one pass over memory of it."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def convolve(
    x: Float[Array, "seq_len width"],
    weight: Float[Array, "conv_width width"],
    bias: Float[Array, " width"] | None,
    positions: Int[Array, " seq_len"],
    before: Float[Array, "conv_history width"] | None,
) -> Float[Array, "seq_len width"]:
    """See `causal_conv`."""
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
