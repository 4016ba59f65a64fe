"""One derivative rule for every implementation: the adjoint of a linear recurrence is one run backwards."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from griffin_kernels.linear_scan import associative, reference, xla
from griffin_kernels.linear_scan.planar import Planar

SCANS = {"reference": reference.scan, "xla": xla.scan, "associative": associative.scan}


def _wide(tree):
    """Casts to the accumulation dtype: at least float32."""
    return jax.tree.map(lambda z: z.astype(np.promote_types(z.dtype, jnp.float32)), tree)


def _like(tree, target):
    return jax.tree.map(lambda z, t: z.astype(t.dtype), tree, target)


def shift(h, h0, *, reverse):
    """The state that enters each step: `h` moved one step in the running direction, with `h0` first."""

    def one(h, h0):
        h0 = h0[..., None, :].astype(h.dtype)
        return jnp.concatenate([h[..., 1:, :], h0] if reverse else [h0, h[..., :-1, :]], axis=-2)

    return jax.tree.map(one, h, h0)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def differentiable_scan(x, a, h0, reset, reverse, implementation):
    """`(h, h_last)` of the recurrence; `h0` is wide, `h` comes back in the dtype of `x`."""
    h, h_last = SCANS[implementation](_wide(x), _wide(a), h0, reset, reverse=reverse)
    return _like(h, x), h_last


def _forward(x, a, h0, reset, reverse, implementation):
    answer: Any = differentiable_scan(x, a, h0, reset, reverse, implementation)
    h, h_last = answer
    # Named, so that a `jax.checkpoint` policy can keep it: running the scan again is what costs most.
    h = jax.tree.map(lambda z: checkpoint_name(z, "linear_scan"), h)
    return (h, h_last), (a, h, h0, reset)


def _backward(reverse, implementation, residuals, cotangents):
    a, h, h0, reset = residuals
    dh, dh_last = cotangents
    if jax.tree.leaves(h)[0].shape[-2] == 0:
        return dh, jax.tree.map(jnp.zeros_like, a), dh_last, None
    # dL/dh_t collects from h_{t+1} through a_{t+1}, so the adjoint runs the other way with `a` one step
    # late; its own resets stand one step late as well. A unit decay hands dh_last to the last step.
    conj_a = jax.tree.map(lambda z: z, _wide(a).conj() if isinstance(a, Planar) else _wide(a))
    ones = jax.tree.map(lambda z: jnp.ones_like(z), h0)
    if isinstance(ones, Planar):
        ones = Planar(ones.re, jnp.zeros_like(ones.im))
    late_a = shift(conj_a, ones, reverse=not reverse)
    late_reset = None
    if reset is not None:
        first = jnp.zeros_like(reset[..., :1])
        late_reset = jnp.concatenate(
            [first, reset[..., :-1]] if reverse else [reset[..., 1:], first], axis=-1
        )
    dx, dx_end = SCANS[implementation](_wide(dh), late_a, dh_last, late_reset, reverse=not reverse)
    entering = _wide(shift(h, h0, reverse=reverse))
    da = dx * entering.conj() if isinstance(entering, Planar) else dx * entering
    end = -1 if reverse else 0
    dh0 = jax.tree.map(lambda z: z[..., end, :], conj_a) * dx_end
    if reset is not None:
        da = jax.tree.map(lambda z: jnp.where(reset[..., None], 0, z), da)
        dh0 = jax.tree.map(lambda z: jnp.where(reset[..., end, None], 0, z), dh0)
    return _like(dx, dh), _like(da, a), _like(dh0, h0), None


differentiable_scan.defvjp(_forward, _backward)
