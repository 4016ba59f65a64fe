"""The derivative rule around every implementation: it saves the arguments and `h`, and recomputes the gates."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from griffin_kernels.cg_lru.implementations import BACKWARD, FORWARD
from griffin_kernels.operation import varying_alike


def cg_lru(x, recurrence_gate, input_gate, a_param, theta, h0, reset, valid, *, c, implementation, interpret):
    """`cg_lru_scan` on one device, arguments checked and filled in."""
    rows = (jnp.broadcast_to(z, h0.re.shape) for z in (a_param, theta))
    # Outside of the derivative rule, so that cotangents of what varies less are summed.
    arguments = varying_alike(x, recurrence_gate, input_gate, *rows, h0, reset, valid)
    return differentiable_cg_lru(*arguments, c, implementation, interpret)


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
