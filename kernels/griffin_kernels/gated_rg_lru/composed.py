"""The gates' products, then the RG-LRU by whichever implementation the platform prefers."""

import jax
import jax.numpy as jnp
import numpy as np

from griffin_kernels.rg_lru import implementations as unit
from griffin_kernels.rows import block_matmul


def forward(x, recurrence_gate, input_gate, a_param, h0, reset, valid, *, c):
    """`(h, h_last)`; each gate is a pair of weight `[gate_blocks, side, side]` and bias `[gate_blocks, side]`."""
    gates = product(x, *recurrence_gate), product(x, *input_gate)
    return unit.FORWARD(x, *gates, jnp.broadcast_to(a_param, h0.shape), h0, reset, valid, c=c)


def backward(dh, dh_last, x, recurrence_gate, input_gate, a_param, h, h0, reset, valid, *, c):
    """The cotangents `(dx, drecurrence_gate, dinput_gate, da_param, dh0)`; the gates are computed again."""
    gates, pull = jax.vjp(lambda x, r, i: (product(x, *r), product(x, *i)), x, recurrence_gate, input_gate)
    rows = jnp.broadcast_to(a_param, h0.shape)
    dx, *dgates, da_param, dh0 = unit.BACKWARD(dh, dh_last, x, *gates, rows, h, h0, reset, valid, c=c)
    more, drecurrence_gate, dinput_gate = pull(tuple(dgates))
    da_param = da_param.reshape(-1, a_param.shape[0]).sum(axis=0)
    return dx + more, drecurrence_gate, dinput_gate, da_param, dh0


def product(x, weight, bias):
    """The gate before its sigmoid, in `promote_types(x.dtype, float32)`.

    The products are in that dtype too: a gate near 0 or 1 would lose its decay to a rounded argument.
    """
    wide = np.promote_types(x.dtype, jnp.float32)
    bias = bias.astype(wide).reshape((1,) * (x.ndim - 1) + (-1,))
    return block_matmul(x.astype(wide), weight.astype(wide)) + bias
