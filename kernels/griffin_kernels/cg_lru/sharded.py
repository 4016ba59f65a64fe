"""The CG-LRU over the mesh in effect: by channels as it is; over the sequence as the composition around the scan."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from griffin_kernels.cg_lru.composed import coefficients, of_tokens
from griffin_kernels.cg_lru.vjp import cg_lru
from griffin_kernels.linear_scan.sharded import scan_over_mesh
from griffin_kernels.mesh import shard_map, splits_channels, splits_time, unit_specs


def cg_lru_over_mesh(
    mesh, x, recurrence_gate, input_gate, a_param, theta, h0, reset, valid, *, c, implementation, interpret
):
    """`cg_lru_scan` with its arrays spread over a mesh.

    Split over channels it is the operation of one device on each, and nothing is communicated. Split over the
    sequence, what is elementwise is left to the compiler and the scan exchanges one pair a shard.
    """
    *batch, seq_len, width = x.re.shape
    if splits_time(mesh, seq_len):
        reset = of_tokens(reset, valid)
        a_param, theta = (jnp.broadcast_to(z, h0.re.shape) for z in (a_param, theta))
        gated, a = coefficients(x, recurrence_gate, input_gate, a_param, theta, reset, valid, c, h0.re.dtype)
        # The composition leaves the choice of a scan to the platform.
        of_scan = {"implementation": None if implementation == "composed" else implementation}
        h, h_last = scan_over_mesh(mesh, gated, a, h0, reset, **of_scan, interpret=interpret)
        return jax.tree.map(lambda z, like: z.astype(like.dtype), h, x), h_last
    channels = splits_channels(mesh, width)
    wide, state, tokens = unit_specs(len(batch), channels)
    parameter = PartitionSpec(channels)
    in_specs = (wide, wide, wide, parameter, parameter, state, tokens, tokens)
    one = partial(cg_lru, c=c, implementation=implementation, interpret=interpret)
    run = shard_map(one, mesh, in_specs, (wide, state))
    return run(x, recurrence_gate, input_gate, a_param, theta, h0, reset, valid)
