"""Ways to write the scan and its derivative in plain JAX.

`FORWARD[name](x, a, h0)` gives `(h, h_last)`; `BACKWARD[name](dh, dh_last, a, h, h0)` gives `(dx, da, dh0)`. Real
arrays, no resets, forwards in time.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from griffin_kernels.linear_scan import associative, reference, xla
from griffin_kernels.linear_scan.adjoint import backward_of, forward_of
from jax.experimental.xla_metadata import set_xla_metadata

BLOCK = 16

xla_forward = functools.partial(xla.forward, reset=None, reverse=False)
xla_backward = functools.partial(xla.backward, reset=None, reverse=False)


def read(z, t):
    """Step t."""
    return jax.lax.dynamic_index_in_dim(z, t, z.ndim - 2, keepdims=False, allow_negative_indices=False)


def write(z, row, t):
    """Step t replaced."""
    return jax.lax.dynamic_update_index_in_dim(z, row, t, z.ndim - 2, allow_negative_indices=False)


def unrolled(x, a, h0, reset, *, reverse) -> tuple:
    """`jax.lax.scan` with eight steps a turn."""

    def step(h, inputs):
        x_t, a_t = inputs
        h = a_t * h + x_t
        return h, h

    time_major = (jnp.moveaxis(x, -2, 0), jnp.moveaxis(a, -2, 0))
    h_last, h = jax.lax.scan(step, h0, time_major, reverse=reverse, unroll=8)
    return jnp.moveaxis(h, 0, -2), h_last


def side_by_side(x, a, h0, reset, *, reverse) -> tuple:
    """Chunks of sqrt(seq_len) advance together from 0; their ends are chained; a second pass has the right starts."""
    seq_len = x.shape[-2]
    chunk = 2 ** (int(math.log2(seq_len)) // 2)
    parts = [jnp.moveaxis(z.reshape(z.shape[0], -1, chunk, z.shape[-1]), 2, 0) for z in (x, a)]

    def ends(carry, inputs):
        (h, decay), (x_t, a_t) = carry, inputs
        return (a_t * h + x_t, a_t * decay), None

    zeros = jnp.zeros_like(parts[0][0])
    (h, decay), _ = jax.lax.scan(ends, (zeros, zeros + 1), parts, reverse=reverse)
    starts: Any
    starts, h_last = reference.scan(h, decay, h0, None, reverse=reverse)
    edge = h0[:, None]
    starts = (
        jnp.concatenate([starts[:, 1:], edge], 1) if reverse else jnp.concatenate([edge, starts[:, :-1]], 1)
    )

    def step(h, inputs):
        x_t, a_t = inputs
        h = a_t * h + x_t
        return h, h

    _, h = jax.lax.scan(step, starts, parts, reverse=reverse)
    return jnp.moveaxis(h, 0, 2).reshape(x.shape), h_last


def blocks(x, a, h0, reset, *, reverse) -> tuple:
    """A loop over blocks of time; inside a block a parallel prefix."""
    size = min(BLOCK, x.shape[-2])
    parts = [jnp.moveaxis(z.reshape(z.shape[0], -1, size, z.shape[-1]), 1, 0) for z in (x, a)]

    def step(h, inputs):
        x_block, a_block = inputs
        states, h = associative.scan(x_block, a_block, h, None, reverse=reverse)
        return h, states

    h_last, h = jax.lax.scan(step, h0, parts, reverse=reverse)
    return jnp.moveaxis(h, 0, 1).reshape(x.shape), h_last


def steps_forward(steps, x, a, h0):
    """In place, several steps a turn."""
    seq_len = x.shape[-2]

    def turn(i, carry):
        h, states = carry
        for j in range(steps):
            h = read(a, i * steps + j) * h + read(x, i * steps + j)
            states = write(states, h, i * steps + j)
        return h, states

    h_last, h = jax.lax.fori_loop(0, seq_len // steps, turn, (h0, jnp.zeros_like(x)))
    return h, h_last


def steps_backward(steps, dh, dh_last, a, h, h0):
    """In place, several steps a turn."""
    seq_len = h.shape[-2]

    def turn(i, carry):
        cotangent, dx, da = carry
        for j in range(steps):
            t = seq_len - 1 - i * steps - j
            before = jnp.where(t == 0, h0, read(h, jnp.maximum(t - 1, 0)))
            cotangent = cotangent + read(dh, t)
            dx, da = write(dx, cotangent, t), write(da, cotangent * before, t)
            cotangent = cotangent * read(a, t)
        return cotangent, dx, da

    start = (dh_last, jnp.zeros_like(dh), jnp.zeros_like(a))
    dh0, dx, da = jax.lax.fori_loop(0, seq_len // steps, turn, start)
    return dx, da, dh0


def over_forward(x, a, h0):
    """The states take the place of x: nothing is filled before the first turn."""

    def turn(t, carry):
        h, states = carry
        h = read(a, t) * h + read(states, t)
        return h, write(states, h, t)

    h_last, h = jax.lax.fori_loop(0, x.shape[-2], turn, (h0, x))
    return h, h_last


def over_backward(dh, dh_last, a, h, h0):
    """dx takes the place of dh, da that of a."""
    seq_len = h.shape[-2]

    def turn(i, carry):
        cotangent, dx, da = carry
        t = seq_len - 1 - i
        before = jnp.where(t == 0, h0, read(h, jnp.maximum(t - 1, 0)))
        cotangent, decay = cotangent + read(dx, t), read(da, t)
        return cotangent * decay, write(dx, cotangent, t), write(da, cotangent * before, t)

    dh0, dx, da = jax.lax.fori_loop(0, seq_len, turn, (dh_last, dh, a))
    return dx, da, dh0


def halves(function: Callable[..., tuple], *arguments):
    """Two loops, one for each half of the channels: would XLA run them on two cores?"""
    parts = zip(*(jnp.split(z, 2, axis=-1) for z in arguments), strict=True)
    results = [function(*part) for part in parts]
    return tuple(jnp.concatenate(z, axis=-1) for z in zip(*results, strict=True))


def row_by_row(function: Callable[..., tuple], *arguments):
    """One row after the other: contiguous steps, and as many turns as tokens."""
    return jax.lax.map(lambda row: function(*row), arguments)


def one_kernel(function: Callable[..., tuple], *arguments):
    """XLA's own mark for small calls, which it compiles as one piece: a loop without its interpreter."""
    with set_xla_metadata(xla_cpu_small_call="true", inlineable="false"):
        return jax.jit(function)(*arguments)


def _general(scan):
    forward = functools.partial(forward_of(scan), reset=None, reverse=False)
    return forward, functools.partial(backward_of(scan), reset=None, reverse=False)


def _wrapped(wrap):
    return functools.partial(wrap, xla_forward), functools.partial(wrap, xla_backward)


DESIGNS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "in place (`xla`)": (xla_forward, xla_backward),
    "in place, 4 steps a turn": (
        functools.partial(steps_forward, 4),
        functools.partial(steps_backward, 4),
    ),
    "over its inputs": (over_forward, over_backward),
    "in place, one kernel": _wrapped(one_kernel),
    "in place, channels in halves": _wrapped(halves),
    "in place, row by row": _wrapped(row_by_row),
    "`lax.scan` (`reference`)": _general(reference.scan),
    "`lax.scan`, unroll=8": _general(unrolled),
    "chunks side by side": _general(side_by_side),
    "blocks of 16": _general(blocks),
    "`associative_scan` (`associative`)": _general(associative.scan),
}
