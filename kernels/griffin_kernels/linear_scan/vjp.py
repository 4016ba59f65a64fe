"""The derivative rule around every implementation: it saves `a`, `h` and `h0`, and nothing else."""

from functools import partial
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from griffin_kernels.linear_scan.implementations import BACKWARD, FORWARD


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def differentiable_scan(x, a, h0, reset, reverse, implementation, interpret):
    """`(h, h_last)` of the recurrence; `h0` is wide, `h` comes back in the dtype of `x`."""
    return FORWARD(x, a, h0, reset, reverse=reverse, implementation=implementation, interpret=interpret)


def _forward(x, a, h0, reset, reverse, implementation, interpret):
    answer: Any = differentiable_scan(x, a, h0, reset, reverse, implementation, interpret)
    h, h_last = answer
    # Named, so that a `jax.checkpoint` policy can keep it: running the scan again is what costs most.
    h = jax.tree.map(lambda z: checkpoint_name(z, "linear_scan"), h)
    return (h, h_last), (a, h, h0, reset)


def _backward(reverse, implementation, interpret, residuals, cotangents):
    dx, da, dh0 = BACKWARD(
        *cotangents, *residuals, reverse=reverse, implementation=implementation, interpret=interpret
    )
    return dx, da, dh0, None


differentiable_scan.defvjp(_forward, _backward)
