"""The fastest plain-JAX path we know on CPU: one loop over time that reads and writes the arrays as they lie.

Each turn reads one step of `[..., seq_len, width]`, all rows and channels of it, and writes one. XLA keeps the
outputs of a loop in place, so that nothing is moved but what the recurrence needs and the filling of the outputs
before the first turn. `jax.lax.scan` computes the same but wants time in front, which copies every operand once
more; the derivative writes `dx` and `da` in one such loop, where the general one (`adjoint.py`) shifts `a` and `h`
by copies and multiplies in a pass of its own. What else was tried, and the figures: experiments/cpu_scan.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def forward(x, a, h0, reset, *, reverse):
    """`(h, h_last)`, h in the dtype of x; h0, the carried state and h_last are wide."""
    seq_len = jax.tree.leaves(x)[0].shape[-2]

    def step(i, carry):
        state, h = carry
        t = seq_len - 1 - i if reverse else i
        state = dropped(read(a, t) * state, reset, t) + read(x, t)
        return state, _write(h, state, t)

    h_last, h = jax.lax.fori_loop(0, seq_len, step, (h0, _room_for(x)))
    return h, h_last


def backward(dh, dh_last, a, h, h0, reset, *, reverse):
    """The cotangents `(dx, da, dh0)` in one loop: dx in the dtype of dh, da in that of a, dh0 wide."""
    seq_len = jax.tree.leaves(h)[0].shape[-2]

    def step(i, carry):
        cotangent, dx, da = carry
        t = i if reverse else seq_len - 1 - i
        before = t + 1 if reverse else t - 1
        is_first = i == seq_len - 1
        entering = jax.tree.map(
            lambda start, z: jnp.where(is_first, start, z), h0, read(h, jnp.clip(before, 0, seq_len - 1))
        )
        cotangent = cotangent + read(dh, t)
        dx = _write(dx, cotangent, t)
        da = _write(da, dropped(cotangent * entering.conj(), reset, t), t)
        return dropped(cotangent * read(a, t).conj(), reset, t), dx, da

    dh0, dx, da = jax.lax.fori_loop(0, seq_len, step, (dh_last, _room_for(dh), _room_for(a)))
    return dx, da, dh0


def read(tree, t) -> Any:
    """Step t of arrays `[..., seq_len, width]`, in the accumulation dtype: at least float32."""

    def one(z):
        row = jax.lax.dynamic_index_in_dim(z, t, z.ndim - 2, keepdims=False, allow_negative_indices=False)
        return row.astype(np.promote_types(z.dtype, jnp.float32))

    return jax.tree.map(one, tree)


def _write(tree, row, t):
    """`tree` with its step t replaced, in its own dtype."""

    def one(z, row):
        row = row.astype(z.dtype)
        return jax.lax.dynamic_update_index_in_dim(z, row, t, z.ndim - 2, allow_negative_indices=False)

    return jax.tree.map(one, tree, row)


def dropped(row, reset, t) -> Any:
    """Zero where a document starts, by selection: 0 * NaN would let a NaN cross the border."""
    if reset is None:
        return row
    starts = jax.lax.dynamic_index_in_dim(reset, t, reset.ndim - 1, allow_negative_indices=False)
    return jax.tree.map(lambda z: jnp.where(starts, 0, z), row)


def _room_for(tree):
    return jax.tree.map(jnp.zeros_like, tree)
