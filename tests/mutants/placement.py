"""Mistakes that show over a mesh of devices alone: in what shards are sent, and in whose gradients are summed."""

from functools import partial

from .mutation import Mutant

_conv = partial(Mutant, module="griffin_kernels.causal_conv.sharded", law="placement", block="rg_lru")
_attention = partial(
    Mutant, module="griffin_kernels.local_attention.sharded", law="placement", block="local_mqa"
)
_CONVOLVE = "return convolve(x, weight, bias, positions, before)"

MUTANTS = (
    _conv(
        name="placement-sum-over-shards-missing",
        old=_CONVOLVE,
        new="kept = jax.lax.stop_gradient(weight)\n"
        "        weight = jnp.where(jax.lax.axis_index(axes_of(time)) == 0, weight, kept) if shards > 1 else weight\n"
        f"        {_CONVOLVE}",
        why="the gradient of the filters is that of the first shard's tokens, not the sum over the shards",
    ),
    _conv(
        name="placement-halo-of-the-convolution-one-short",
        old="halo(x, history, axes, shards)",
        new="jnp.pad(halo(x, history - 1, axes, shards), ((1, 0), (0, 0)))",
        why="the oldest of the rows that the filter reaches is not sent",
    ),
    _attention(
        name="placement-halo-of-attention-one-short",
        old="rows = min(window_size, seq_len) - 1 if",
        new="rows = min(window_size, seq_len) - 2 if",
        why="a window counts the token itself, and one key too few is sent",
    ),
    _attention(
        name="placement-cotangent-doubled",
        old="        if rows:\n",
        new="        k = 2 * k - jax.lax.stop_gradient(k) if rows else k\n        if rows:\n",
        why="the keys' cotangent is summed by hand and once more by the transposition",
    ),
    Mutant(
        name="placement-correction-in-bfloat16",
        module="griffin_kernels.linear_scan.sharded",
        law="placement",
        block="rg_lru",
        old="after = product * state + h\n",
        new="after = (product * state + h).astype(jnp.bfloat16).astype(h.dtype)\n",
        traps=(28,),
        why="the state that goes from shard to shard is as narrow as the inputs",
    ),
)
