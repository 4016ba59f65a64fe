"""What the TPU kernels of `linear_scan` compute, in Pallas interpreters; `tests/aot` has what they cost."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from griffin_kernels import tpu_tiles
from griffin_kernels.linear_scan import Planar, linear_scan, pallas_tpu
from griffin_kernels.linear_scan.oracle import linear_scan_oracle, linear_scan_vjp_oracle
from griffin_kernels.tpu_scan import VMEM_BYTES, Plan
from jax._src.pallas.mosaic.interpret import interpret_pallas_call  # The record of races has no public door.
from jax.experimental.pallas import tpu as pltpu

from griffin_eqx.verify import scan_law_tests

interpreted = partial(linear_scan, implementation="pallas_tpu", interpret=True)

test_laws_of_every_kind = pytest.mark.thorough(scan_law_tests(interpreted, complex=True, reverse=True))


def draw(rng, shape, planar, dtype):
    values = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if planar else 0)
    parts = (values.real, values.imag) if planar else (values,)
    parts = [jnp.asarray(part, dtype) for part in parts]
    return Planar(*parts) if planar else parts[0]


def wide(z):
    if isinstance(z, Planar):
        return np.asarray(z.re, np.float64) + 1j * np.asarray(z.im, np.float64)
    return np.asarray(z, np.float64)


def held_to_the_oracle(shape, *, planar=False, dtype="float32", reverse=False, interpret: Any = True, tol):
    """Values and all cotangents of one scan with resets."""
    rng = np.random.default_rng(0)
    batch, seq_len, width = shape
    x, a, dh = (draw(rng, shape, planar, dtype) for _ in range(3))
    a = jax.tree.map(lambda z: z * jnp.asarray(0.5, dtype), a)
    h0, dh_last = (draw(rng, (batch, width), planar, "float32") for _ in range(2))
    reset = jnp.asarray(rng.random((batch, seq_len)) < 0.2)

    # Called by themselves, because the TPU interpreter has effects, and `linear_scan` is free of them.
    how = {"reverse": reverse, "interpret": interpret}
    h, h_last = jax.jit(partial(pallas_tpu.forward, **how))(x, a, h0, reset)
    got = h, h_last, *jax.jit(partial(pallas_tpu.backward, **how))(dh, dh_last, a, h, h0, reset)
    want = linear_scan_oracle(wide(x), wide(a), wide(h0), reset, reverse=reverse)
    want += linear_scan_vjp_oracle(
        wide(x), wide(a), wide(h0), reset, wide(dh), wide(dh_last), reverse=reverse
    )
    for name, one, other in zip(("h", "h_last", "dx", "da", "dh0"), got, want, strict=True):
        np.testing.assert_allclose(wide(one), other, rtol=tol, atol=tol, err_msg=name)


# One rounding of outputs of size 4 at most, beside sums in float32.
BFLOAT16 = 4 * 2.0**-8
# Sums of a few dozen products in float32.
FLOAT32 = 1e-5


@pytest.mark.parametrize("reverse", [False, True])
def test_complex_numbers(reverse):
    held_to_the_oracle((1, 9, 3), planar=True, reverse=reverse, tol=FLOAT32)


@pytest.mark.parametrize("planar", [False, True])
def test_bfloat16_is_computed_in_float32(planar):
    held_to_the_oracle((2, 9, 3), planar=planar, dtype="bfloat16", tol=BFLOAT16)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "shape",
    [
        (1, 8 * 37, 1),  # 37 tiles: the last block is cut short
        (1, 8 * 32, 128 * 9),  # two blocks, and a register of one channel group behind a full one
    ],
    ids=str,
)
def test_time_blocks_follow_each_other(shape, reverse):
    held_to_the_oracle(shape, reverse=reverse, tol=FLOAT32)


def test_no_race_and_no_uninitialised_memory():
    """In the TPU interpreter, where memory starts as NaN and reads outside an array raise."""
    interpret = pltpu.InterpretParams(
        detect_races=True, uninitialized_memory="nan", out_of_bounds_reads="raise"
    )
    held_to_the_oracle((2, 8 * 18, 256), interpret=interpret, tol=FLOAT32)
    assert interpret_pallas_call.races is not None  # The interpreter kept a record,
    assert not interpret_pallas_call.races.races_found  # and it is clean.


def test_a_plan_covers_every_tile_and_channel_and_fits():
    """Blocks of any shape lie within what a kernel may take, and no tile is left out or done twice."""
    for all_tiles in (1, 2, 15, 16, 17, 31, 256, 257):
        for all_groups in (1, 2, 7, 8, 9, 20, 64, 127):
            for moved in (6, 12, 20, 36):
                for reverse in (False, True):
                    plan = Plan.make(all_tiles, all_groups, moved, reverse)
                    assert plan.groups * plan.channel_blocks == all_groups
                    blocks = [plan.time_block(turn) for turn in range(plan.time_blocks)]
                    assert sorted(blocks) == list(range(plan.time_blocks))
                    assert (plan.time_blocks - 1) * plan.tiles < all_tiles <= plan.time_blocks * plan.tiles
                    assert 2 * moved * plan.tiles * plan.groups * 8 * 128 <= VMEM_BYTES
                    covered = [group for first, size in plan.chunks for group in range(first, first + size)]
                    assert covered == list(range(plan.groups))


def test_the_tile_view_is_undone():
    z = jnp.arange(2 * 24 * 384.0).reshape(2, 24, 384)
    tiles = tpu_tiles.to_tiles(z)
    np.testing.assert_array_equal(tpu_tiles.from_tiles(tiles), z)
    # Step 5 of tile 1, channel group 2: row 2 * 8 + 5.
    np.testing.assert_array_equal(tiles[1, 1, 2 * 8 + 5], z[1, 8 + 5, 2 * 128 : 3 * 128])


def test_every_bfloat16_is_taken_from_its_word():
    """All 65,536 patterns in either half, NaN payloads included: interpreters cannot run the packed accessors."""
    bits = np.arange(2**16, dtype=np.uint32)
    other = np.random.default_rng(0).permutation(bits)
    low, high = tpu_tiles.halves(jnp.asarray(bits | other << 16))
    np.testing.assert_array_equal(np.asarray(low).view(np.uint32), bits << 16)
    np.testing.assert_array_equal(np.asarray(high).view(np.uint32), other << 16)


def test_a_tpu_kernel_is_not_run_elsewhere():
    x = jnp.ones((8, 128))
    with pytest.raises(NotImplementedError) as caught:
        jax.jit(partial(linear_scan, implementation="pallas_tpu"))(x, x)
    assert str(caught.value) == (
        "linear_scan: implementation='pallas_tpu' runs on tpu, and this program is lowered for cpu. Pass "
        "interpret=True to try its values here, slowly, or leave implementation out."
    )


def test_float64_is_refused_by_name_and_computed_without():
    with jax.enable_x64(True):
        x = jnp.ones((8, 128), "float64")
        with pytest.raises(NotImplementedError) as caught:
            jax.jit(interpreted)(x, x)
        assert str(caught.value) == (
            "linear_scan: implementation='pallas_tpu' cannot run this: it knows float32 and bfloat16, not float64. "
            "Leave implementation out to let the platform choose."
        )
        exported = jax.export.export(jax.jit(linear_scan), platforms=["tpu"])(x, x)
        assert "tpu_custom_call" not in exported.mlir_module()


def test_the_platform_of_the_lowering_chooses():
    x = jnp.ones((8, 128))
    exported = jax.export.export(jax.jit(linear_scan), platforms=["tpu"])(x, x)
    assert "tpu_custom_call" in exported.mlir_module()
    assert "tpu_custom_call" not in jax.jit(linear_scan).lower(x, x).as_text()
