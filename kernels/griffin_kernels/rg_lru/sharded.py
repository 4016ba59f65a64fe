"""The RG-LRU over the mesh in effect: by channels as it is; over the sequence as the composition around the scan."""

from functools import partial

import jax.numpy as jnp
from jax.sharding import PartitionSpec

from griffin_kernels.linear_scan.sharded import scan_over_mesh
from griffin_kernels.mesh import shard_map, splits_channels, splits_time, unit_specs
from griffin_kernels.rg_lru.vjp import rg_lru
from griffin_kernels.rg_lru.xla import coefficients, of_tokens


def rg_lru_over_mesh(
    mesh, x, recurrence_gate, input_gate, a_param, h0, reset, valid, *, c, implementation, interpret
):
    """`rg_lru_scan` with its arrays spread over a mesh.

    Split over channels it is the operation of one device on each, and nothing is communicated. Split over the
    sequence, what is elementwise is left to the compiler and the scan exchanges one pair a shard.
    """
    how = {"implementation": implementation, "interpret": interpret}
    *batch, seq_len, width = x.shape
    if splits_time(mesh, seq_len):
        reset = of_tokens(reset, valid)
        rows = jnp.broadcast_to(a_param, h0.shape)
        gated, a = coefficients(x, recurrence_gate, input_gate, rows, reset, valid, c, h0.dtype)
        h, h_last = scan_over_mesh(mesh, gated, a, h0, reset, **how)
        return h.astype(x.dtype), h_last
    channels = splits_channels(mesh, width)
    wide, state, tokens = unit_specs(len(batch), channels)
    in_specs = (wide, wide, wide, PartitionSpec(channels), state, tokens, tokens)
    run = shard_map(partial(rg_lru, c=c, **how), mesh, in_specs, (wide, state))
    return run(x, recurrence_gate, input_gate, a_param, h0, reset, valid)
