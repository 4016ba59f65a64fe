"""The RG-LRU with its gates' products over the mesh in effect: a shard of the channels computes its own gates."""

from functools import partial

from jax.sharding import PartitionSpec

from griffin_kernels.gated_rg_lru.composed import product
from griffin_kernels.gated_rg_lru.implementations import FORWARD
from griffin_kernels.mesh import shard_map, splits_channels, splits_time, unit_specs
from griffin_kernels.rg_lru.sharded import rg_lru_over_mesh


def gated_rg_lru_over_mesh(
    mesh, x, recurrence_gate, input_gate, a_param, h0, reset, valid, *, c, implementation, interpret
):
    """`gated_rg_lru` with its arrays spread over a mesh.

    Channels are split with the gates' blocks, and nothing is communicated but sums for the weights' cotangents.
    Split over the sequence, the gates' products are the compiler's, and the rest is as `rg_lru_scan`.
    """
    *batch, seq_len, width = x.shape
    if splits_time(mesh, seq_len):
        gates = product(x, *recurrence_gate), product(x, *input_gate)
        of_scan = {"implementation": None if implementation == "composed" else implementation}
        arguments = x, *gates, a_param, h0, reset, valid
        return rg_lru_over_mesh(mesh, *arguments, c=c, **of_scan, interpret=interpret)
    channels = splits_channels(mesh, width, recurrence_gate[0].shape[0])
    wide, state, tokens = unit_specs(len(batch), channels)
    blocks = PartitionSpec(channels, None, None), PartitionSpec(channels, None)
    in_specs = (wide, blocks, blocks, PartitionSpec(channels), state, tokens, tokens)
    one = partial(FORWARD, c=c, implementation=implementation, interpret=interpret)
    run = shard_map(one, mesh, in_specs, (wide, state))
    return run(x, recurrence_gate, input_gate, a_param, h0, reset, valid)
