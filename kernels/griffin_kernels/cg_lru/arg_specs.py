"""Shapes of the fused CG-LRU's arguments, shared by benchmarks and by the tests that compile it for a TPU."""

import jax.numpy as jnp
from jax import ShapeDtypeStruct

from griffin_kernels.cases import Case, Shape
from griffin_kernels.cg_lru.api import cg_lru_scan
from griffin_kernels.cg_lru.implementations import FORWARD
from griffin_kernels.linear_scan.planar import Planar

COMPARED = FORWARD.running_on("tpu")
"""All that a TPU runs."""


def packed_gates(shape: Shape, dtype: str):
    """`x`, both gates before their sigmoid, parameters, `h0`, and resets; width counts complex channels."""
    array, state = ShapeDtypeStruct(shape, jnp.dtype(dtype)), _float32(shape[0], shape[2])
    x, h0 = (Planar(z, z) for z in (array, state))  # pyright: ignore[reportArgumentType]
    return x, array, array, _float32(shape[2]), _float32(shape[2]), h0, ShapeDtypeStruct(shape[:2], jnp.bool_)


def _float32(*shape: int) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(shape, jnp.float32)


CASES = (Case("cg_lru", COMPARED, cg_lru_scan, packed_gates, {"forward": 6.0, "backward": 12.0}),)
