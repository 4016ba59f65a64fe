"""The recurrence as the shortest correct JAX: one step of `jax.lax.scan` a token."""

import jax
import jax.numpy as jnp

from griffin_kernels.linear_scan.planar import Planar


def scan(x, a, h0, reset, *, reverse):
    """Runs the recurrence over axis -2; see `linear_scan` for the arguments.

    All arrays in the accumulation dtype; `x`, `a`, `h0` are arrays or `Planar` pairs; `reset` may be None.
    """

    def step(h, inputs):
        x_t, a_t, reset_t = inputs
        carried = a_t * h
        if reset_t is not None:
            # By selection: 0 * NaN would let a NaN cross the border of a document.
            carried = jax.tree.map(lambda c: jnp.where(reset_t[..., None], 0, c), carried)
        h = carried + x_t
        return h, h

    time_major = jax.tree.map(lambda z: jnp.moveaxis(z, -2, 0), (x, a))
    reset = None if reset is None else jnp.moveaxis(reset, -1, 0)
    h_last, h = jax.lax.scan(step, h0, (*time_major, reset), reverse=reverse)
    if isinstance(h, Planar):
        return Planar(jnp.moveaxis(h.re, 0, -2), jnp.moveaxis(h.im, 0, -2)), h_last
    return jnp.moveaxis(h, 0, -2), h_last
