"""The CG-LRU on TPU: gates, rotation, normalisation, resets and scan in one pass.

6 words an element of a complex channel forward (x in two parts, two gates, h in two parts) and 12 backward (dh, x, two
gates, h; dx, two gate cotangents): the gates are recomputed from their pre-activations. The compiler's own sine and
cosine would take half of all instructions; see `cosine_and_sine`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from griffin_kernels.linear_scan.pallas_tpu import refuses as refuses
from griffin_kernels.linear_scan.planar import Planar
from griffin_kernels.rg_lru.flags import RESET, SKIP, flags_of
from griffin_kernels.rg_lru.tpu_math import decay, half, normaliser, open_gate, rate_of
from griffin_kernels.tpu_scan import Ahead, Cost, tpu_scan

# The sigmoid of this is 0 in float32, and its tanh is finite: a gate that leaves the state alone.
_CLOSED = -1e4
_TURN = 2 * math.pi

# sin(pi t) / t and cos(pi t) in t**2 for |t| <= 1/2, interpolated in Chebyshev's points: 2e-7 in float32.
_SIN = (3.14159264, -5.16771008, 2.55007752, -0.59829129, 0.07765766)
_COS = (1.0, -4.93480214, 4.05870916, -1.335212, 0.23493731, -0.02439632)


def cosine_and_sine(turns):
    """Of an angle in turns, float32, from those of half of what it is above or below a whole number of them.

    Off by 1e-6 at most, besides what the rounding of the turns themselves makes of many.
    """
    t = turns - jnp.round(turns)
    sin, cos = t * _polynomial(_SIN, t * t), _polynomial(_COS, t * t)
    return 1 - 2 * sin * sin, 2 * sin * cos


def forward(x, recurrence_gate, input_gate, a_param, theta, h0, reset, valid, *, c, interpret: Any = False):
    """`(h, h_last)`; see `composed.forward`."""

    def step(h, inputs, _ahead, constants, flag):
        x, recurrence_gate, input_gate = inputs
        r, a, turned = _decay(recurrence_gate, constants)
        scale = normaliser(r, a, constants[0])[0] * open_gate(half(input_gate))
        carried = turned * h
        if flag is not None:
            scale = jnp.where(flag == RESET, open_gate(half(input_gate)), scale)
            # By selection: 0 * NaN would let a NaN cross the border of a document.
            carried = jax.tree.map(lambda z: jnp.where(flag == RESET, 0.0, z), carried)
        new = carried + Planar(scale * x.re, scale * x.im)
        if flag is not None:
            new = jax.tree.map(lambda z, kept: jnp.where(flag == SKIP, kept, z), new, h)
        return new, new

    return tpu_scan(
        step,
        h0,
        (x, recurrence_gate, input_gate),
        idle=(Planar(0, 0), _CLOSED, _CLOSED),  # pyright: ignore[reportArgumentType]  (numbers, not arrays)
        constants=_constants(a_param, theta, c),
        flags=flags_of(reset, valid),
        outputs=jax.tree.map(lambda z: z.dtype, x),
        reverse=False,
        cost=Cost(60, 5),
        name="cg_lru",
        interpret=interpret,
    )


def backward(
    dh,
    dh_last,
    x,
    recurrence_gate,
    input_gate,
    a_param,
    theta,
    h,
    h0,
    reset,
    valid,
    *,
    c,
    interpret: Any = False,
):
    """The cotangents `(dx, drecurrence_gate, dinput_gate, da_param, dtheta, dh0)`; see `composed.backward`."""

    def step(state, inputs, ahead, constants, flag):
        g, d_rate, d_angle = state
        (entering,) = ahead
        dh, x, recurrence_gate, input_gate = inputs
        r, a, turned = _decay(recurrence_gate, constants)
        i = open_gate(half(input_gate))
        scale, slope = normaliser(r, a, constants[0])
        r = open_gate(r)
        g = g + dh
        # conj(g) times what the state brings: its real part goes by log a, and its imaginary part by the angle.
        kept = g.conj() * (turned * entering)
        through = g.re * x.re + g.im * x.im
        # By -log a: through a itself, and through a**2 in the root, whose slope is bounded.
        d_decay, d_turned = 2 * a * a * i * through * slope - kept.re, -kept.im
        passed, used = turned.conj() * g, g
        if flag is not None:
            scale = jnp.where(flag == RESET, 1.0, scale)
            d_decay, d_turned = (jnp.where(flag != 0, 0.0, z) for z in (d_decay, d_turned))
            passed = jax.tree.map(
                lambda z, g: jnp.where(flag == RESET, 0.0, jnp.where(flag == SKIP, g, z)), passed, g
            )
            used = jax.tree.map(lambda z: jnp.where(flag == SKIP, 0.0, z), g)
            through = jnp.where(flag == SKIP, 0.0, through)
        rate, turns = constants
        d_recurrence_gate = (d_decay * rate + d_turned * (_TURN * turns)) * r * (1 - r)
        dx = Planar(used.re * scale * i, used.im * scale * i)
        out = dx, d_recurrence_gate, through * scale * i * (1 - i)
        return (passed, d_rate + d_decay * r, d_angle + d_turned * r), out

    zeros = jnp.zeros_like(dh_last.re)
    (dx, drecurrence_gate, dinput_gate), (dh0, d_rate, d_angle) = tpu_scan(
        step,
        (dh_last, zeros, zeros),
        (dh, x, recurrence_gate, input_gate),
        idle=(Planar(0, 0), Planar(0, 0), _CLOSED, _CLOSED),  # pyright: ignore[reportArgumentType]
        ahead=(Ahead(h, h0),),
        constants=_constants(a_param, theta, c),
        flags=flags_of(reset, valid),
        outputs=(jax.tree.map(lambda z: z.dtype, x), recurrence_gate.dtype, input_gate.dtype),
        reverse=True,
        cost=Cost(100, 5),
        name="cg_lru_backward",
        interpret=interpret,
    )
    # d log(sigmoid(L)) / dL = sigmoid(-L).
    da_param = -c * d_rate * jax.nn.sigmoid(-a_param)
    return dx, drecurrence_gate, dinput_gate, da_param, c * d_angle, dh0


def _decay(recurrence_gate, constants):
    """`(half, a, a exp(i phase))`."""
    rate, turns = constants
    r = half(recurrence_gate)
    a = decay(r, rate)
    cos, sin = cosine_and_sine(open_gate(r) * turns)
    return r, a, Planar(a * cos, a * sin)


def _constants(a_param, theta, c):
    """The rate, and the turns of a token whose recurrence gate is 1."""
    return rate_of(a_param, c), theta * (c / _TURN)


def _polynomial(coefficients, u):
    y = jnp.float32(coefficients[-1])
    for one in coefficients[-2::-1]:
        y = y * u + jnp.float32(one)
    return y
