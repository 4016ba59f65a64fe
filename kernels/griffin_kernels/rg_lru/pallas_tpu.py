"""The RG-LRU on TPU: gates, normalisation, resets and scan in one pass.

4 words an element forward (x, two gates, h) and 8 backward (dh, x, two gates, h; dx, two gate cotangents): the gates
are recomputed from their pre-activations, and nothing between them and the states ever reaches memory.
"""

import jax
import jax.numpy as jnp

from griffin_kernels.linear_scan.pallas_tpu import refuses as refuses
from griffin_kernels.rg_lru.flags import RESET, SKIP, flags_of
from griffin_kernels.rg_lru.tpu_math import decay, half, normaliser, open_gate, pulled_back, rate_of
from griffin_kernels.tpu_scan import Ahead, Cost, tpu_scan

# The sigmoid of this is 0 in float32, and its tanh is finite: a gate that leaves the state alone.
_CLOSED = -1e4


def forward(x, recurrence_gate, input_gate, a_param, h0, reset, valid, *, c, interpret=False):
    """`(h, h_last)`; see `xla.forward`."""

    def step(h, inputs, _ahead, rate, flag):
        x, recurrence_gate, input_gate = inputs
        r = half(recurrence_gate)
        a = decay(r, rate)
        root, _ = normaliser(r, a, rate)
        opening = half(input_gate)
        if flag is None:
            # Twice the gated input and half the root: one operation less.
            new = a * h + (0.5 * root) * (opening * x + x)
        else:
            new = open_gate(opening) * x
            # By selection: 0 * NaN would let a NaN cross the border of a document.
            new = jnp.where(flag == RESET, new, a * h + root * new)
            new = jnp.where(flag == SKIP, h, new)
        return new, new

    return tpu_scan(
        step,
        h0,
        (x, recurrence_gate, input_gate),
        idle=(0, _CLOSED, _CLOSED),
        constants=rate_of(a_param, c),
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
        r, i = half(recurrence_gate), open_gate(half(input_gate))
        a = decay(r, rate)
        g = g + dh
        *out, d_rate = pulled_back(g, entering, x, r, i, a, rate, flag)
        passed = a * g
        if flag is not None:
            passed = jnp.where(flag == RESET, 0.0, jnp.where(flag == SKIP, g, passed))
        return (passed, collected + d_rate), tuple(out)

    (dx, drecurrence_gate, dinput_gate), (dh0, collected) = tpu_scan(
        step,
        (dh_last, jnp.zeros_like(dh_last)),
        (dh, x, recurrence_gate, input_gate),
        idle=(0, 0, _CLOSED, _CLOSED),
        ahead=(Ahead(h, h0),),
        constants=rate_of(a_param, c),
        flags=flags_of(reset, valid),
        outputs=(x.dtype, recurrence_gate.dtype, input_gate.dtype),
        reverse=True,
        cost=Cost(40, 6),
        name="rg_lru_backward",
        interpret=interpret,
    )
    # d log(sigmoid(L)) / dL = sigmoid(-L).
    return dx, drecurrence_gate, dinput_gate, -c * collected * jax.nn.sigmoid(-a_param), dh0
