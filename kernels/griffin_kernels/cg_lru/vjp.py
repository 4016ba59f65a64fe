"""The derivative rule around every implementation: it saves the arguments and `h`, and recomputes the gates."""

from functools import partial
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from griffin_kernels.cg_lru.implementations import BACKWARD, FORWARD


@partial(jax.custom_vjp, nondiff_argnums=(8, 9, 10))
def differentiable_cg_lru(
    x, recurrence_gate, input_gate, a_param, theta, h0, reset, valid, c, implementation, interpret
):
    """`(h, h_last)`; parameters have the batch axes of `x`, and with `h0` the accumulation dtype."""
    arguments = x, recurrence_gate, input_gate, a_param, theta, h0, reset, valid
    return FORWARD(*arguments, c=c, implementation=implementation, interpret=interpret)


def _forward(x, recurrence_gate, input_gate, a_param, theta, h0, reset, valid, c, implementation, interpret):
    moving = x, recurrence_gate, input_gate, a_param, theta
    answer: Any = differentiable_cg_lru(*moving, h0, reset, valid, c, implementation, interpret)
    h, h_last = answer
    # Named, so that a `jax.checkpoint` policy can keep it: running the scan again is what costs most.
    h = jax.tree.map(lambda z: checkpoint_name(z, "linear_scan"), h)
    return (h, h_last), (*moving, h, h0, reset, valid)


def _backward(c, implementation, interpret, residuals, cotangents):
    cotangents = BACKWARD(*cotangents, *residuals, c=c, implementation=implementation, interpret=interpret)
    return *cotangents, None, None


differentiable_cg_lru.defvjp(_forward, _backward)
