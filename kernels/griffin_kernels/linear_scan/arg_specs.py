"""Shapes of the scan's arguments, shared by benchmarks and by the tests that compile it for a TPU."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import ShapeDtypeStruct

from griffin_kernels.cases import Case, Direction, Shape
from griffin_kernels.gating import input_multiplier, log_decay
from griffin_kernels.linear_scan.api import linear_scan
from griffin_kernels.linear_scan.implementations import FORWARD
from griffin_kernels.linear_scan.planar import Planar

COMPARED = FORWARD.running_on("tpu")
"""All that a TPU runs. `associative` takes the TPU compiler up to a minute, so it stands in two cases only."""

QUICK = tuple(name for name in COMPARED if name not in ("reference", "associative"))


def real(shape: Shape, dtype: str):
    """`x`, `a` and `h0`, the state in float32."""
    array = ShapeDtypeStruct(shape, jnp.dtype(dtype))
    return array, array, ShapeDtypeStruct((shape[0], shape[2]), jnp.float32)


def with_reset(shape: Shape, dtype: str):
    """The same, and a reset a token."""
    return *real(shape, dtype), ShapeDtypeStruct(shape[:2], jnp.bool_)


def planar(shape: Shape, dtype: str):
    """Complex arrays as pairs of real ones."""
    parts: tuple[Any, ...] = real(shape, dtype)
    return tuple(Planar(part, part) for part in parts)


def context(shape: Shape, dtype: str):
    """A recurrent block's arrays around the scan: input, two gates before their sigmoid, branch, weights, decay."""
    array, width = ShapeDtypeStruct(shape, jnp.dtype(dtype)), shape[-1]
    return (
        *(array,) * 4,
        ShapeDtypeStruct((width, width), jnp.dtype(dtype)),
        ShapeDtypeStruct((width,), jnp.float32),
    )


def in_context(x, recurrence_gate, input_gate, branch, weight, a_param, *, implementation):
    """The scan between what surrounds it in a recurrent block: gates before, GeLU branch and product behind.

    A kernel that is fast alone may still force its layout on its neighbours; here that shows.
    """
    dtype = x.dtype
    r, i = (jax.nn.sigmoid(gate.astype(jnp.float32)) for gate in (recurrence_gate, input_gate))
    log_a = log_decay(r, a_param[None], 8.0)
    gated = (input_multiplier(log_a) * i * x.astype(jnp.float32)).astype(dtype)
    h: Any = linear_scan(gated, jnp.exp(log_a).astype(dtype), implementation=implementation)[0]
    return (h * jax.nn.gelu(branch)) @ weight


def row_by_row(x, a, h0, reset, *, implementation):
    """As a model calls it: one row, under `jax.vmap`."""
    return jax.vmap(functools.partial(linear_scan, implementation=implementation))(x, a, h0, reset)


_WORDS: dict[Direction, float | None] = {"forward": 3.0, "backward": 5.0}

CASES = (
    Case("linear_scan", COMPARED, linear_scan, real, _WORDS),
    Case("linear_scan[reset]", QUICK, linear_scan, with_reset, _WORDS),
    Case("linear_scan[vmap]", QUICK, row_by_row, with_reset, _WORDS),
    Case("linear_scan[reverse]", QUICK, functools.partial(linear_scan, reverse=True), real, _WORDS),
    Case("linear_scan[complex]", QUICK, linear_scan, planar, {"forward": 6.0, "backward": 10.0}),
    Case("context", COMPARED, in_context, context, {"forward": None, "gradient": None}),
)
