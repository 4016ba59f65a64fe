"""What a stretch of time does to the state that enters it: `h_out = product * h_in + h`, from one reading of it.

The product is that of the decays, and h the last state of a scan from zero; a reset in the stretch makes it
`h_out = h`. The backward pass goes the other way with `c_t = a_t * (c_{t+1} + dh_t)`, the cotangent of the state
that enters step t, which is 0 at a reset. Its products are those of the same decays: what is carried is `a * g`
and not the cotangent g of a state, which would need them shifted by one step.

Both are operations with the arguments of `FORWARD` and `BACKWARD`, whose states at the ends are zeros here.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from griffin_kernels.linear_scan.implementations import BACKWARD, FORWARD
from griffin_kernels.linear_scan.planar import Planar, unit_like
from griffin_kernels.linear_scan.xla import dropped, read
from griffin_kernels.operation import Implementation, Operation


def _forward_loop(x, a, h0, reset, *, reverse):
    def step(h, a_t, t):
        return dropped(a_t * h, reset, t) + read(x, t)

    return _loop(step, a, h0, reverse=reverse)


def _backward_loop(dh, dh_last, a, h, h0, reset, *, reverse):
    del h, h0

    def step(c, a_t, t):
        return dropped(a_t * (c + read(dh, t)), reset, t)

    conj_a = a.conj() if isinstance(a, Planar) else a
    return _loop(step, conj_a, dh_last, reverse=not reverse)


def _loop(step, a, start, *, reverse):
    """`(product of a, last state)`; arrays are read once, as they lie, and widened a step at a time."""
    length = jax.tree.leaves(a)[0].shape[-2]

    def turn(t, carry):
        product, h = carry
        t = length - 1 - t if reverse else t
        a_t = read(a, t)
        return a_t * product, step(h, a_t, t)

    return jax.lax.fori_loop(0, length, turn, (unit_like(start), start))


def _forward_of(run: Callable[..., Any]) -> Callable[..., Any]:
    """The fold by an implementation that has none of its own: it writes all states, and they are dropped."""

    def fold(x, a, h0, reset, **options):
        return _product(a, h0), run(x, a, h0, reset, **options)[1]

    return fold


def _backward_of(run: Callable[..., Any]) -> Callable[..., Any]:
    def fold(dh, dh_last, a, h, h0, reset, **options):
        conj_a = a.conj() if isinstance(a, Planar) else a
        return _product(conj_a, h0), run(dh, dh_last, a, h, h0, reset, **options)[2]

    return fold


def _product(a, like):
    """The product over time in the dtype of a state; complex ones by halves, since factors may change places."""
    if not isinstance(a, Planar):
        return jnp.prod(a, axis=-2, dtype=like.dtype)
    a = jax.tree.map(lambda z: z.astype(like.re.dtype), a)
    while (length := a.re.shape[-2]) > 1:
        half = length // 2
        first, second, odd = (
            jax.tree.map(lambda z: z[..., part, :], a)  # noqa: B023  (used at once)
            for part in (slice(half), slice(half, 2 * half), slice(2 * half, None))
        )
        a = jax.tree.map(lambda z, w: jnp.concatenate([z, w], axis=-2), first * second, odd)
    return jax.tree.map(lambda z: z[..., 0, :], a)


def _folds(
    operation: Operation, of: Callable[..., Any], own: dict[str, Callable[..., Any]]
) -> dict[str, Implementation]:
    return {
        name: Implementation(own[name])
        if name in own
        else dataclasses.replace(implementation, run=of(implementation.run))
        for name, implementation in operation.implementations.items()
    }


FORWARD_FOLD = Operation(
    "linear_scan_fold",
    _folds(FORWARD, _forward_of, {"reference": _forward_loop, "xla": _forward_loop}),
    FORWARD.preferred,
    outputs=lambda x, a, h0, reset: (h0, h0),
)
"""`(x, a, zeros, reset, *, reverse)` to `(product, h_last)`."""

BACKWARD_FOLD = Operation(
    "linear_scan_backward_fold",
    _folds(BACKWARD, _backward_of, {"reference": _backward_loop, "xla": _backward_loop}),
    BACKWARD.preferred,
    outputs=lambda dh, dh_last, a, h, h0, reset: (h0, h0),
)
"""`(dh, zeros, a, h, zeros, reset, *, reverse)` to `(product, dh0)`; `reverse` is the forward pass's."""
