"""Shapes of the fused RG-LRU's arguments, shared by benchmarks and by the tests that compile it for a TPU."""

import functools

import jax
import jax.numpy as jnp
from jax import ShapeDtypeStruct

from griffin_kernels.cases import Case, Direction, Shape
from griffin_kernels.linear_scan.arg_specs import context
from griffin_kernels.rg_lru.api import rg_lru_scan
from griffin_kernels.rg_lru.implementations import FORWARD

COMPARED = FORWARD.running_on("tpu")
"""All that a TPU runs."""


def gates(shape: Shape, dtype: str):
    """`x`, both gates before their sigmoid, `a_param`, and `h0`; parameter and state in float32."""
    array, width = ShapeDtypeStruct(shape, jnp.dtype(dtype)), shape[-1]
    state = ShapeDtypeStruct((shape[0], width), jnp.float32)
    return array, array, array, ShapeDtypeStruct((width,), jnp.float32), state


def packed_gates(shape: Shape, dtype: str):
    """The same, with a reset and a mark of padding a token."""
    flags = ShapeDtypeStruct(shape[:2], jnp.bool_)
    return *gates(shape, dtype), flags, flags


def row_by_row(x, recurrence_gate, input_gate, a_param, h0, reset, valid, *, implementation):
    """As a model calls it: one row, under `jax.vmap`."""
    one = functools.partial(rg_lru_scan, implementation=implementation)
    axes = (0, 0, 0, None, 0, 0, 0)
    return jax.vmap(one, in_axes=axes)(x, recurrence_gate, input_gate, a_param, h0, reset, valid)


def in_context(x, recurrence_gate, input_gate, branch, weight, a_param, *, implementation):
    """As `linear_scan.arg_specs.in_context`, with the gates inside the kernel."""
    h = rg_lru_scan(x, recurrence_gate, input_gate, a_param, implementation=implementation)[0]
    return (h * jax.nn.gelu(branch)) @ weight


_WORDS: dict[Direction, float | None] = {"forward": 4.0, "backward": 8.0}

CASES = (
    Case("rg_lru", COMPARED, rg_lru_scan, gates, _WORDS),
    Case("rg_lru[vmap]", COMPARED, row_by_row, packed_gates, _WORDS),
    Case("context[rg_lru]", COMPARED, in_context, context, {"forward": None, "gradient": None}),
)
