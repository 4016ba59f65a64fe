"""The CG-LRU composed of elementwise work and the complex `linear_scan`, by whichever of its implementations."""

import jax
import jax.numpy as jnp

from griffin_kernels.gating import input_multiplier, log_decay
from griffin_kernels.linear_scan import implementations
from griffin_kernels.linear_scan.planar import Planar


def forward(x, recurrence_gate, input_gate, a_param, theta, h0, reset, valid, *, c):
    """`(h, h_last)`; h in the dtype of x, computed in that of h0; a_param and theta are shaped as a part of h0."""
    reset = of_tokens(reset, valid)
    gated, a = coefficients(x, recurrence_gate, input_gate, a_param, theta, reset, valid, c, h0.re.dtype)
    h, h_last = implementations.FORWARD(gated, a, h0, reset, reverse=False)
    return jax.tree.map(lambda z, like: z.astype(like.dtype), h, x), h_last


def backward(dh, dh_last, x, recurrence_gate, input_gate, a_param, theta, h, h0, reset, valid, *, c):
    """The cotangents `(dx, drecurrence_gate, dinput_gate, da_param, dtheta, dh0)`."""
    wide = h0.re.dtype
    reset = of_tokens(reset, valid)
    (_, a), pull = jax.vjp(
        lambda x, r, i, a_param, theta: coefficients(x, r, i, a_param, theta, reset, valid, c, wide),
        x,
        recurrence_gate,
        input_gate,
        a_param,
        theta,
    )
    dh, h = jax.tree.map(lambda z: z.astype(wide), (dh, h))
    dgated, da, dh0 = implementations.BACKWARD(dh, dh_last, a, h, h0, reset, reverse=False)
    return *pull((dgated, da)), dh0


def of_tokens(reset, valid):
    """Padding resets nothing."""
    return reset if reset is None or valid is None else reset & valid


def coefficients(x, recurrence_gate, input_gate, a_param, theta, reset, valid, c, wide):
    """`(gated, a)` of `h_t = a_t h_{t-1} + gated_t`."""
    r = jax.nn.sigmoid(recurrence_gate.astype(wide))
    scale = jax.nn.sigmoid(input_gate.astype(wide))
    log_a, phase = log_decay(r, a_param, c), c * r * theta[..., None, :]
    multiplier = input_multiplier(log_a)
    if reset is not None:
        multiplier = jnp.where(reset[..., None], 1, multiplier)
    scale, radius = multiplier * scale, jnp.exp(log_a)
    gated = Planar(scale * x.re.astype(wide), scale * x.im.astype(wide))
    a = Planar(radius * jnp.cos(phase), radius * jnp.sin(phase))
    if valid is not None:
        # Padding leaves the state alone: decay 1, input 0.
        counts = valid[..., None]
        gated = jax.tree.map(lambda z: jnp.where(counts, z, 0), gated)
        a = Planar(jnp.where(counts, a.re, 1), jnp.where(counts, a.im, 0))
    return gated, a
