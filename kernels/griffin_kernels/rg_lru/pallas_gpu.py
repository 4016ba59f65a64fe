"""The RG-LRU on GPU: gates, normalisation, resets and scan in one pass.

4 words an element forward (x, two gates, h) and 8 backward (dh, x, two gates, h; dx, two gate cotangents): the gates
are recomputed from their pre-activations, and nothing between them and the states ever reaches memory.

The forms are those that GPUs compute in few instructions: exponentials, of which `expm1` keeps `1 - a**2` where a is
close to 1. A tanh has a branch.
"""

import jax
import jax.numpy as jnp

from griffin_kernels.gating import MAX_SQRT_DERIVATIVE
from griffin_kernels.gpu_scan import gpu_scan
from griffin_kernels.linear_scan.pallas_gpu import refuses as refuses
from griffin_kernels.rg_lru.flags import RESET, SKIP, flags_of

# d sqrt(z) / dz = 1 / sqrt(z) / 2 reaches the bound here.
_FLOOR = (2 * MAX_SQRT_DERIVATIVE) ** -2


def forward(x, recurrence_gate, input_gate, a_param, h0, reset, valid, *, c, interpret=False):
    """`(h, h_last)`; see `xla.forward`."""

    def step(h, inputs, _ahead, log_a_of_one, flag):
        x, recurrence_gate, input_gate = inputs
        _, v, a = _decay(recurrence_gate, log_a_of_one)
        new = _sigmoid(input_gate) * x
        run = a * h + jnp.sqrt(v) * new
        if flag is not None:
            # By selection: 0 * NaN would let a NaN cross the border of a document.
            run = jnp.where(flag == RESET, new, jnp.where(flag == SKIP, h, run))
        return run, run

    return gpu_scan(
        step,
        h0,
        (x, recurrence_gate, input_gate),
        constants=_log_a_of_one(a_param, c),
        flags=flags_of(reset, valid),
        outputs=x.dtype,
        reverse=False,
        name="rg_lru",
        interpret=interpret,
    )


def backward(
    dh, dh_last, x, recurrence_gate, input_gate, a_param, h, h0, reset, valid, *, c, interpret=False
):
    """The cotangents `(dx, drecurrence_gate, dinput_gate, da_param, dh0)`; see `xla.backward`."""

    def step(state, inputs, ahead, log_a_of_one, flag):
        g, collected = state
        (entering,) = ahead
        dh, x, recurrence_gate, input_gate = inputs
        r, v, a = _decay(recurrence_gate, log_a_of_one)
        i = _sigmoid(input_gate)
        g = g + dh
        scale, slope = jnp.sqrt(v), 0.5 * jax.lax.rsqrt(jnp.maximum(v, _FLOOR))
        # Through a, directly and in the root of 1 - a**2, both as derivatives by log a.
        d_log_a = g * a * (entering - 2 * a * i * x * slope)
        passed = a * g
        if flag is not None:
            scale = jnp.where(flag == RESET, 1.0, scale)
            d_log_a = jnp.where(flag != 0, 0.0, d_log_a)
            passed = jnp.where(flag == RESET, 0.0, jnp.where(flag == SKIP, g, passed))
            g = jnp.where(flag == SKIP, 0.0, g)
        d_gated = g * scale
        out = d_gated * i, d_log_a * log_a_of_one * r * (1 - r), d_gated * x * i * (1 - i)
        return (passed, collected + d_log_a * r), out

    (dx, drecurrence_gate, dinput_gate), (dh0, collected) = gpu_scan(
        step,
        (dh_last, jnp.zeros_like(dh_last)),
        (dh, x, recurrence_gate, input_gate),
        ahead=((h, h0),),
        constants=_log_a_of_one(a_param, c),
        flags=flags_of(reset, valid),
        outputs=(x.dtype, recurrence_gate.dtype, input_gate.dtype),
        reverse=True,
        name="rg_lru_backward",
        interpret=interpret,
    )
    # d log(sigmoid(L)) / dL = sigmoid(-L).
    da_param = c * collected * jax.nn.sigmoid(-a_param.astype(jnp.float32))
    return dx, drecurrence_gate, dinput_gate, da_param.astype(a_param.dtype), dh0


def _decay(recurrence_gate, log_a_of_one):
    """`(r, 1 - a**2, a)`."""
    r = _sigmoid(recurrence_gate)
    log_a = log_a_of_one * r
    return r, -jnp.expm1(2 * log_a), jnp.exp(log_a)


def _sigmoid(z):
    return 1 / (1 + jnp.exp(-z))


def _log_a_of_one(a_param, c):
    """`log a_t` where the recurrence gate is 1."""
    return c * jax.nn.log_sigmoid(a_param.astype(jnp.float32))
