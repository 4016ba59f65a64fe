"""The public function, on one device or over the mesh in effect."""

from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from griffin_kernels.causal_conv.sharded import sharded_causal_conv
from griffin_kernels.causal_conv.xla import convolve
from griffin_kernels.mesh import mesh_in_effect, splits_channels, splits_time


def causal_conv(
    x: Float[Array, "seq_len width"],
    weight: Float[Array, "conv_width width"],
    bias: Float[Array, " width"] | None,
    positions: Int[Array, " seq_len"],
    before: Float[Array, "conv_history width"] | None = None,
) -> Float[Array, "seq_len width"]:
    """Convolves each channel over time: `y_t = bias + sum_k weight[k] * x_{t-k}` (Griffin, section 2.3).

    Token t sees `min(conv_width - 1, positions[t])` earlier ones. With `jax.set_mesh` in effect, as
    `sharded_causal_conv`.

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
    mesh = mesh_in_effect()
    if mesh is not None and x.size:
        spec = PartitionSpec(splits_time(mesh, x.shape[0]), splits_channels(mesh, x.shape[1]))
        return sharded_causal_conv(x, weight, bias, positions, before, mesh=mesh, spec=spec)
    return convolve(x, weight, bias, positions, before)
