"""The RG-LRU composed of elementwise work and `linear_scan`'s plain-JAX path."""

import jax
import jax.numpy as jnp

from griffin_kernels.gating import input_multiplier, log_decay
from griffin_kernels.linear_scan import implementations


def forward(x, recurrence_gate, input_gate, a_param, h0, reset, valid, *, c):
    """`(h, h_last)`; h in the dtype of x, computed in that of h0."""
    reset = of_tokens(reset, valid)
    gated, a = coefficients(x, recurrence_gate, input_gate, a_param, reset, valid, c, h0.dtype)
    h, h_last = implementations.FORWARD(gated, a, h0, reset, reverse=False, implementation="xla")
    return h.astype(x.dtype), h_last


def backward(dh, dh_last, x, recurrence_gate, input_gate, a_param, h, h0, reset, valid, *, c):
    """The cotangents `(dx, drecurrence_gate, dinput_gate, da_param, dh0)`."""
    wide = h0.dtype
    reset = of_tokens(reset, valid)
    (_, a), pull = jax.vjp(
        lambda x, r, i, a_param: coefficients(x, r, i, a_param, reset, valid, c, wide),
        x,
        recurrence_gate,
        input_gate,
        a_param,
    )
    dgated, da, dh0 = implementations.BACKWARD(
        dh.astype(wide), dh_last, a, h.astype(wide), h0, reset, reverse=False, implementation="xla"
    )
    return *pull((dgated, da)), dh0


def of_tokens(reset, valid):
    """Padding resets nothing."""
    return reset if reset is None or valid is None else reset & valid


def coefficients(x, recurrence_gate, input_gate, a_param, reset, valid, c, wide):
    """`(gated, a)` of `h_t = a_t h_{t-1} + gated_t`."""
    recurrence_gate = jax.nn.sigmoid(recurrence_gate.astype(wide))
    input_gate = jax.nn.sigmoid(input_gate.astype(wide))
    log_a = log_decay(recurrence_gate, a_param, c)
    multiplier = input_multiplier(log_a)
    if reset is not None:
        multiplier = jnp.where(reset[..., None], 1, multiplier)
    gated, a = multiplier * input_gate * x.astype(wide), jnp.exp(log_a)
    if valid is not None:
        # Padding leaves the state alone: decay 1, input 0.
        gated, a = jnp.where(valid[..., None], gated, 0), jnp.where(valid[..., None], a, 1)
    return gated, a
