"""The public functions under `jax.set_mesh`: they split their own work, and values and gradients stay as they are."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from griffin_kernels.cg_lru import cg_lru_scan
from griffin_kernels.gated_rg_lru import gated_rg_lru
from griffin_kernels.linear_scan import Planar, linear_scan
from griffin_kernels.mesh import mesh_in_effect
from griffin_kernels.rg_lru import rg_lru_scan
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from griffin_eqx.verify import assert_close, tolerance
from tests.meshes import make_mesh

pytestmark = pytest.mark.core

ROWS, SEQ_LEN = 4, 14


def arrays(width: int, seq_len: int = SEQ_LEN) -> tuple[Any, ...]:
    """`(x, y, z, h0, row, theta, weight, bias, reset, valid)`; the first four and the last two have rows."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    wide = [draw(ROWS, seq_len, width) for _ in range(3)]
    gates = draw(2, width // 2, width // 2), draw(2, width // 2)
    reset = jnp.asarray(rng.random((ROWS, seq_len)) < 0.1)
    valid = jnp.arange(seq_len)[None, :] < jnp.asarray([[seq_len], [seq_len - 3], [1], [seq_len]])
    return *wide, draw(ROWS, width), draw(width), draw(width), *gates, reset, valid


def _linear(x, y, z, h0, row, theta, weight, bias, reset, valid, **how):
    return linear_scan(x, jax.nn.sigmoid(y + row[None]), h0, reset, reverse=True, **how)


def _rg_lru(x, y, z, h0, row, theta, weight, bias, reset, valid, **how):
    return rg_lru_scan(x, y, z, row, h0, reset, valid, **how)


def _gated(x, y, z, h0, row, theta, weight, bias, reset, valid, **how):
    return gated_rg_lru(x, (weight, bias), (2 * weight, bias), row, h0, reset, valid, **how)


def _cg_lru(x, y, z, h0, row, theta, weight, bias, reset, valid, **how):
    h, h_last = cg_lru_scan(Planar(x, y), z, x + y, row, theta, Planar(h0, 2 * h0), reset, valid, **how)
    return h.re + h.im, h_last.re * h_last.im


FUNCTIONS = [_linear, _rg_lru, _gated, _cg_lru]
_HAS_ROWS = (0, 0, 0, 0, None, None, None, None, 0, 0)


def program(function, **how):
    """The gradient by all that is floating, of a batch of rows."""

    @jax.jit
    def run(moving, reset, valid):
        def outputs(*moving):
            rows = jax.vmap(lambda *z: function(*z, **how), in_axes=_HAS_ROWS, spmd_axis_name=axis)
            h, h_last = rows(*moving, reset, valid)
            h = jnp.where(valid[..., None], h, 0)
            return (h**2).sum() + (h_last**2).sum(), (h, h_last)

        axis = None if mesh_in_effect() is None else "data"
        return jax.value_and_grad(outputs, tuple(range(8)), has_aux=True)(*moving)

    return run


@functools.cache
def alone(function, width):
    """What one device makes of them."""
    *moving, reset, valid = arrays(width)
    return program(function)(moving, reset, valid)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("mesh", "width"), [((1, 4, 2), 8), ((2, 1, 2), 8), ((2, 2, 2), 6)], ids=str)
def test_values_and_gradients_are_those_of_one_device(function, mesh, width):
    *moving, reset, valid = arrays(width)
    with jax.set_mesh(make_mesh(mesh)):
        got = program(function)(moving, reset, valid)
    assert_close(got, alone(function, width), "values and gradients", tol=8 * tolerance(np.float32, SEQ_LEN))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("mesh", [(2, 2, 2), (8, 1, 1)], ids=str)
def test_tpu_kernels_are_lowered_over_a_mesh(function, mesh):
    """Which the compiler refuses for a kernel that it is to cut itself."""
    *moving, reset, valid = (jnp.concatenate([z, z]) if z.shape[0] == ROWS else z for z in arrays(512, 16))
    with jax.set_mesh(make_mesh(mesh)):
        traced = program(function).trace(moving, reset, valid)
        assert traced.lower(lowering_platforms=("tpu",)).as_text().count("tpu_custom_call") >= 2


@pytest.mark.parametrize(
    ("shape", "names", "kind", "ours"),
    [
        ((2, 2), ("data", "model"), AxisType.Auto, True),
        ((2, 1), ("sequence", "elsewhere"), AxisType.Auto, True),
        ((2, 2), ("data", "expert"), AxisType.Auto, False),
        ((2, 2), ("data", "model"), AxisType.Explicit, False),
        ((1, 1), ("data", "model"), AxisType.Auto, False),
    ],
)
def test_which_meshes_are_ours(shape, names, kind, ours):
    mesh = jax.make_mesh(shape, names, axis_types=(kind,) * 2, devices=jax.devices()[: shape[0] * shape[1]])
    assert mesh_in_effect() is None
    with jax.set_mesh(mesh):
        assert (mesh_in_effect() is not None) == ours
        if ours:
            inside = jax.shard_map(
                lambda x: x + float(mesh_in_effect() is not None), in_specs=P(), out_specs=P()
            )
            assert float(jax.jit(inside)(jnp.zeros(()))) == 0
