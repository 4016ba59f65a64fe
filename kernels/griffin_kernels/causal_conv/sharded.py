"""The convolution over a mesh of devices: each shard of the sequence is sent `conv_width - 1` rows of its past."""

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from griffin_kernels.causal_conv.xla import convolve
from griffin_kernels.halo import at_the_end, halo
from griffin_kernels.mesh import axes_of, check_spec, shard_map, shards_of


def sharded_causal_conv(
    x: Float[Array, "seq_len width"],
    weight: Float[Array, "conv_width width"],
    bias: Float[Array, " width"] | None,
    positions: Int[Array, " seq_len"],
    before: Float[Array, "conv_history width"] | None = None,
    *,
    mesh: Mesh | AbstractMesh | None = None,
    spec: PartitionSpec,
) -> Float[Array, "seq_len width"]:
    """Runs `causal_conv` with its arrays split over a mesh: the same values and gradients.

    Call it inside of `jax.vmap(..., spmd_axis_name="data")` for a batch.

    Args:
      x: As in `causal_conv`.
      weight: As in `causal_conv`; split over its channels as `x` is.
      bias: As `weight`.
      positions: As in `causal_conv`; split as the sequence is.
      before: As in `causal_conv`; split over its channels.
      mesh: The mesh; None takes that of `jax.set_mesh`.
      spec: How `x` lies, such as `P("sequence", "model")`.

    Returns:
      As `causal_conv`, placed like `x`. A length that does not divide is padded, which costs a copy.

    Raises:
      ValueError: If `spec` does not fit `x` and the mesh.
    """
    mesh = check_spec("sharded_causal_conv", mesh, spec, "x", x.shape, uneven=(0,))
    time, channels = spec
    shards, seq_len, history = shards_of(mesh, time), x.shape[0], weight.shape[0] - 1
    if seq_len == 0:
        return x

    def body(x, weight, bias, positions, before):
        if shards > 1:
            before = _entering(x, before, history, axes_of(time), shards)
        return convolve(x, weight, bias, positions, before)

    wide = PartitionSpec(None, channels)
    in_specs = (spec, wide, PartitionSpec(channels), PartitionSpec(time), wide)
    x, positions = (at_the_end(z, -seq_len % shards) for z in (x, positions))
    run = shard_map(body, mesh, in_specs, spec)
    return run(x, weight, bias, positions, before)[:seq_len]


def _entering(x, before, history, axes, shards):
    """The inputs before this shard's own: of earlier shards, and before the first one what was handed in."""
    entering = halo(x, history, axes, shards)
    if before is None:
        return entering
    place = jax.lax.axis_index(axes) * x.shape[0] - history + jnp.arange(history)
    handed = before.astype(x.dtype)[jnp.clip(place + history, 0, max(0, history - 1))]
    return jnp.where((place < 0)[:, None], handed, entering)
