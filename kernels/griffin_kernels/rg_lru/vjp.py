"""The derivative rule around every implementation: it saves the arguments and `h`, and recomputes the gates."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from griffin_kernels.operation import varying_alike
from griffin_kernels.rg_lru.implementations import BACKWARD, FORWARD


def rg_lru(x, recurrence_gate, input_gate, a_param, h0, reset, valid, *, c, implementation, interpret):
    """`rg_lru_scan` on one device, arguments checked and filled in."""
    rows = jnp.broadcast_to(a_param, h0.shape)
    # Outside of the derivative rule, so that cotangents of what varies less are summed.
    arguments = varying_alike(x, recurrence_gate, input_gate, rows, h0, reset, valid)
    return differentiable_rg_lru(*arguments, c, implementation, interpret)


@partial(jax.custom_vjp, nondiff_argnums=(7, 8, 9))
def differentiable_rg_lru(
    x, recurrence_gate, input_gate, a_param, h0, reset, valid, c, implementation, interpret
):
    """`(h, h_last)`; `a_param` has the batch axes of `x`, and with `h0` the accumulation dtype."""
    arguments = x, recurrence_gate, input_gate, a_param, h0, reset, valid
    return FORWARD(*arguments, c=c, implementation=implementation, interpret=interpret)


def _forward(x, recurrence_gate, input_gate, a_param, h0, reset, valid, c, implementation, interpret):
    gates = x, recurrence_gate, input_gate, a_param
    answer: Any = differentiable_rg_lru(*gates, h0, reset, valid, c, implementation, interpret)
    h, h_last = answer
    # Named, so that a `jax.checkpoint` policy can keep it: running the scan again is what costs most.
    h = checkpoint_name(h, "linear_scan")
    return (h, h_last), (*gates, h, h0, reset, valid)


def _backward(c, implementation, interpret, residuals, cotangents):
    cotangents = BACKWARD(*cotangents, *residuals, c=c, implementation=implementation, interpret=interpret)
    return *cotangents, None, None


differentiable_rg_lru.defvjp(_forward, _backward)
