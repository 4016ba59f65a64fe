"""Shapes of the gated RG-LRU's arguments, shared by benchmarks and by the tests that compile it for a TPU."""

import functools

import jax
import jax.numpy as jnp
from jax import ShapeDtypeStruct

from griffin_kernels.cases import Case, Direction, Shape
from griffin_kernels.gated_rg_lru.api import gated_rg_lru
from griffin_kernels.gated_rg_lru.implementations import FORWARD

COMPARED = FORWARD.running_on("tpu")
"""All that a TPU runs."""

GATE_BLOCKS = 16
"""Of each gate, in all of the paper's models."""


def layer(shape: Shape, dtype: str):
    """`x`, both gates' float32 weights and biases, `a_param`, and `h0`, the state in float32."""
    batch, _, width = shape
    side = width // GATE_BLOCKS
    gate = _float32(GATE_BLOCKS, side, side), _float32(GATE_BLOCKS, side)
    return ShapeDtypeStruct(shape, jnp.dtype(dtype)), gate, gate, _float32(width), _float32(batch, width)


def packed_layer(shape: Shape, dtype: str):
    """The same, with a reset and a mark of padding a token."""
    flags = ShapeDtypeStruct(shape[:2], jnp.bool_)
    return *layer(shape, dtype), flags, flags


def context(shape: Shape, dtype: str):
    """A recurrent block's arrays from its convolution on: input, gates, `a_param`, branch, output weights."""
    x, *gates, a_param, _ = layer(shape, dtype)
    return x, *gates, a_param, x, ShapeDtypeStruct((shape[-1],) * 2, jnp.dtype(dtype))


def row_by_row(x, recurrence_gate, input_gate, a_param, h0, reset, valid, *, implementation):
    """As a model calls it: one row, under `jax.vmap`."""
    one = functools.partial(gated_rg_lru, implementation=implementation)
    axes = (0, None, None, None, 0, 0, 0)
    return jax.vmap(one, in_axes=axes)(x, recurrence_gate, input_gate, a_param, h0, reset, valid)


def in_context(x, recurrence_gate, input_gate, a_param, branch, weight, *, implementation):
    """As `linear_scan.arg_specs.in_context`, with the gates' products as well."""
    h = gated_rg_lru(x, recurrence_gate, input_gate, a_param, implementation=implementation)[0]
    return (h * jax.nn.gelu(branch)) @ weight


def _float32(*shape: int) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(shape, jnp.float32)


_WORDS: dict[Direction, float | None] = {"forward": 2.0, "backward": 4.0}

CASES = (
    Case("gated_rg_lru", COMPARED, gated_rg_lru, layer, _WORDS),
    Case("gated_rg_lru[vmap]", COMPARED, row_by_row, packed_layer, _WORDS),
    Case("context[gated_rg_lru]", COMPARED, in_context, context, {"forward": None, "gradient": None}),
)
