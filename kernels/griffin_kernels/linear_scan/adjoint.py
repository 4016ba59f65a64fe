"""From a plain scan to the pair that `linear_scan` needs: the states, and their derivative.

The adjoint of a linear recurrence is the same recurrence run backwards, so a plain scan is all it takes. An
implementation that computes the three cotangents in one pass over memory brings its own `backward`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from griffin_kernels.linear_scan.planar import Planar, unit_like

Scan = Callable[..., tuple]
"""`scan(x, a, h0, reset, *, reverse)`, all arrays in the accumulation dtype."""


def forward_of(scan: Scan) -> Callable[..., tuple]:
    """`forward(x, a, h0, reset, *, reverse)`: `(h, h_last)`, h in the dtype of x; h0 and h_last are wide."""

    def forward(x, a, h0, reset, *, reverse):
        h, h_last = scan(_wide(x), _wide(a), h0, reset, reverse=reverse)
        return _like(h, x), h_last

    return forward


def backward_of(scan: Scan) -> Callable[..., tuple]:
    """`backward(dh, dh_last, a, h, h0, reset, *, reverse)`: the cotangents `(dx, da, dh0)`.

    dx has the dtype of dh, da that of a, dh0 is wide. What `reverse` means is the direction of the forward pass.
    """

    def backward(dh, dh_last, a, h, h0, reset, *, reverse):
        # dL/dh_t collects from h_{t+1} through a_{t+1}, so the adjoint runs the other way with `a` one step
        # late; its own resets stand one step late as well. A unit decay hands dh_last to the last step.
        conj_a = _wide(a).conj() if isinstance(a, Planar) else _wide(a)
        late_a = shift(conj_a, unit_like(h0), reverse=not reverse)
        late_reset = None
        if reset is not None:
            first = jnp.zeros_like(reset[..., :1])
            late_reset = jnp.concatenate(
                [first, reset[..., :-1]] if reverse else [reset[..., 1:], first], axis=-1
            )
        dx, dx_end = scan(_wide(dh), late_a, dh_last, late_reset, reverse=not reverse)
        entering = _wide(shift(h, h0, reverse=reverse))
        da = dx * entering.conj() if isinstance(entering, Planar) else dx * entering
        end = -1 if reverse else 0
        dh0 = jax.tree.map(lambda z: z[..., end, :], conj_a) * dx_end
        if reset is not None:
            da = jax.tree.map(lambda z: jnp.where(reset[..., None], 0, z), da)
            dh0 = jax.tree.map(lambda z: jnp.where(reset[..., end, None], 0, z), dh0)
        return _like(dx, dh), _like(da, a), _like(dh0, h0)

    return backward


def shift(h, h0, *, reverse):
    """The state that enters each step: `h` moved one step in the running direction, with `h0` first."""

    def one(h, h0):
        h0 = h0[..., None, :].astype(h.dtype)
        return jnp.concatenate([h[..., 1:, :], h0] if reverse else [h0, h[..., :-1, :]], axis=-2)

    return jax.tree.map(one, h, h0)


def _wide(tree):
    """Casts to the accumulation dtype: at least float32."""
    return jax.tree.map(lambda z: z.astype(np.promote_types(z.dtype, jnp.float32)), tree)


def _like(tree, target):
    return jax.tree.map(lambda z, t: z.astype(t.dtype), tree, target)
