"""The RG-LRU's elementwise work in the forms that TPUs compute in few instructions, on float32 arrays of any shape.

`sigmoid(z) = tanh(z / 2) / 2 + 1 / 2`, and `1 - a**2 = -tanh(log_a) * (1 + a**2)`, which divides by nothing and
cancels nothing where a is close to 1. The rate is -log a where the recurrence gate is 1.
"""

import jax
import jax.numpy as jnp

from griffin_kernels.gating import MAX_SQRT_DERIVATIVE
from griffin_kernels.rg_lru.flags import RESET, SKIP

_LOG2_E = 1.4426950408889634


def rate_of(a_param, c):
    """The rate of each channel."""
    return -c * jax.nn.log_sigmoid(a_param)


def half(z):
    """`tanh(z / 2)`, from which `open_gate` makes the sigmoid of z."""
    return jnp.tanh(0.5 * z)


def open_gate(half):
    """The gate in [0, 1]."""
    return 0.5 * half + 0.5


def decay(half, rate):
    """`a = exp(-rate * r)`."""
    return jnp.exp2(-_LOG2_E * _minus_log(half, rate))


def normaliser(half, a, rate):
    """`sqrt(1 - a**2)`, and the square root's bounded derivative there."""
    v = jnp.tanh(_minus_log(half, rate)) * (1 + a * a)
    # The root of 0 is 0 * 2**50 = 0; a v that is not 0 lies far above the guard.
    rsqrt = jax.lax.rsqrt(jnp.maximum(v, 2.0**-100))
    return v * rsqrt, jnp.minimum(0.5 * rsqrt, MAX_SQRT_DERIVATIVE)


def _minus_log(half, rate):
    """Of the decay: the rate times the gate, with the sigmoid's two constants folded into the rate."""
    return (0.5 * rate) * half + 0.5 * rate


def pulled_back(g, entering, x, half, i, a, rate, flag):
    """The cotangents of x and of both gates before their sigmoid, and that of the rate but for its sign.

    Args:
      g: The cotangent of h_t, what is carried from behind included.
      entering: h_{t-1}.
      x: x_t.
      half: Of the recurrence gate.
      i: The input gate.
      a: The decay.
      rate: Of each channel.
      flag: What the kernel is told of the token, or None.
    """
    r = open_gate(half)
    scale, slope = normaliser(half, a, rate)
    # By -log a: through a itself, and through a**2 in the root, whose slope is bounded.
    d_decay = g * a * (2 * a * i * x * slope - entering)
    if flag is not None:
        scale = jnp.where(flag == RESET, 1.0, scale)
        d_decay = jnp.where(flag != 0, 0.0, d_decay)
        g = jnp.where(flag == SKIP, 0.0, g)
    d_gated = g * scale
    return d_gated * i, d_decay * rate * r * (1 - r), d_gated * x * i * (1 - i), d_decay * r
