"""The recurrence as a parallel prefix of pairs (product of decays, state): log2(seq_len) passes over memory."""

import jax
import jax.numpy as jnp


def scan(x, a, h0, reset, *, reverse):
    """Runs the recurrence over axis -2; see `linear_scan` for the arguments.

    A reset is part of the monoid, `(a, h, True) * anything_before = (a, h, True)`, because folding it
    into `a` as a zero would turn a NaN before the border into a NaN behind it.
    """

    def combine(left, right):
        a_left, h_left, reset_left = left
        a_right, h_right, reset_right = right
        carried, decay = a_right * h_left, a_right * a_left
        carried, decay = jax.tree.map(lambda c: jnp.where(reset_right, 0, c), (carried, decay))
        return decay, carried + h_right, reset_left | reset_right

    leaf = jax.tree.leaves(x)[0]
    if reset is None:
        reset = jnp.zeros(leaf.shape[:-1], bool)
    decay, h, had_reset = jax.lax.associative_scan(
        combine, (a, x, jnp.broadcast_to(reset[..., None], leaf.shape)), reverse=reverse, axis=leaf.ndim - 2
    )
    start = jax.tree.map(lambda z: z[..., None, :], h0)
    h = jax.tree.map(lambda c: jnp.where(had_reset, 0, c), decay * start) + h
    return h, jax.tree.map(lambda z: z[..., 0 if reverse else -1, :], h)
