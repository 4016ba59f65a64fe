"""The RG-LRU on TPU: gates, normalisation, resets and scan in one pass.

4 words an element forward (x, two gates, h) and 8 backward (dh, x, two gates, h; dx, two gate cotangents): the gates
are recomputed from their pre-activations, and nothing between them and the states ever reaches memory.

The forms are those that TPUs compute in few instructions: `sigmoid(z) = tanh(z / 2) / 2 + 1 / 2`, and
`1 - a**2 = -tanh(log_a) * (1 + a**2)`, which divides by nothing and cancels nothing where a is close to 1.
"""

import jax
import jax.numpy as jnp

from griffin_kernels.gating import MAX_SQRT_DERIVATIVE
from griffin_kernels.linear_scan.pallas_tpu import refuses as refuses
from griffin_kernels.rg_lru.flags import RESET, SKIP, flags_of
from griffin_kernels.tpu_scan import Ahead, Cost, tpu_scan

_LOG2_E = 1.4426950408889634

# The sigmoid of this is 0 in float32, and its tanh is finite: a gate that leaves the state alone.
_CLOSED = -1e4


def forward(x, recurrence_gate, input_gate, a_param, h0, reset, valid, *, c, interpret=False):
    """`(h, h_last)`; see `xla.forward`."""

    def step(h, inputs, _ahead, rate, flag):
        x, recurrence_gate, input_gate = inputs
        _, a, root, _ = _decay(recurrence_gate, rate)
        new = _gate(input_gate) * x
        if flag is None:
            new = a * h + root * new
        else:
            # By selection: 0 * NaN would let a NaN cross the border of a document.
            new = jnp.where(flag == RESET, new, a * h + root * new)
            new = jnp.where(flag == SKIP, h, new)
        return new, new

    return tpu_scan(
        step,
        h0,
        (x, recurrence_gate, input_gate),
        idle=(0, _CLOSED, _CLOSED),
        constants=_rate(a_param, c),
        flags=flags_of(reset, valid),
        outputs=x.dtype,
        reverse=False,
        cost=Cost(18, 5),
        name="rg_lru",
        interpret=interpret,
    )


def backward(
    dh, dh_last, x, recurrence_gate, input_gate, a_param, h, h0, reset, valid, *, c, interpret=False
):
    """The cotangents `(dx, drecurrence_gate, dinput_gate, da_param, dh0)`; see `xla.backward`."""

    def step(state, inputs, ahead, rate, flag):
        g, collected = state
        (entering,) = ahead
        dh, x, recurrence_gate, input_gate = inputs
        r, a, scale, slope = _decay(recurrence_gate, rate)
        i = _gate(input_gate)
        g = g + dh
        # By -log a: through a itself, and through a**2 in the root, whose slope is bounded.
        d_decay = g * a * (2 * a * i * x * slope - entering)
        passed = a * g
        if flag is not None:
            scale = jnp.where(flag == RESET, 1.0, scale)
            d_decay = jnp.where(flag != 0, 0.0, d_decay)
            passed = jnp.where(flag == RESET, 0.0, jnp.where(flag == SKIP, g, passed))
            g = jnp.where(flag == SKIP, 0.0, g)
        d_gated = g * scale
        out = d_gated * i, d_decay * rate * r * (1 - r), d_gated * x * i * (1 - i)
        return (passed, collected + d_decay * r), out

    (dx, drecurrence_gate, dinput_gate), (dh0, collected) = tpu_scan(
        step,
        (dh_last, jnp.zeros_like(dh_last)),
        (dh, x, recurrence_gate, input_gate),
        idle=(0, 0, _CLOSED, _CLOSED),
        ahead=(Ahead(h, h0),),
        constants=_rate(a_param, c),
        flags=flags_of(reset, valid),
        outputs=(x.dtype, recurrence_gate.dtype, input_gate.dtype),
        reverse=True,
        cost=Cost(40, 6),
        name="rg_lru_backward",
        interpret=interpret,
    )
    # d log(sigmoid(L)) / dL = sigmoid(-L).
    return dx, drecurrence_gate, dinput_gate, -c * collected * jax.nn.sigmoid(-a_param), dh0


def _decay(recurrence_gate, rate):
    """`(r, a, sqrt(1 - a**2), the square root's bounded derivative)`; rate is -log a where r is 1."""
    half = jnp.tanh(0.5 * recurrence_gate)
    # Both from the tanh inside the sigmoid r, with the sigmoid's two constants folded into the rate.
    a = jnp.exp2((-0.5 * _LOG2_E * rate) * half - (0.5 * _LOG2_E * rate))
    v = jnp.tanh((0.5 * rate) * half + 0.5 * rate) * (1 + a * a)
    # The root of 0 is 0 * 2**50 = 0; a v that is not 0 lies far above the guard.
    rsqrt = jax.lax.rsqrt(jnp.maximum(v, 2.0**-100))
    return 0.5 * half + 0.5, a, v * rsqrt, jnp.minimum(0.5 * rsqrt, MAX_SQRT_DERIVATIVE)


def _gate(z):
    return 0.5 * jnp.tanh(0.5 * z) + 0.5


def _rate(a_param, c):
    return -c * jax.nn.log_sigmoid(a_param)
