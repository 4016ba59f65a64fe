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
from jax._src.pallas.mosaic.primitives import pack_elementwise_p
from jax.experimental.pallas import tpu as pltpu
from jax.interpreters import mlir

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


@pytest.fixture
def packing():
    """`pack_elementwise` on a CPU, by its documentation: sources from the lowest to the highest bits of a word."""

    def pack(*values, packed_dtype):
        low, high = (jax.lax.bitcast_convert_type(z.astype(packed_dtype), jnp.uint16) for z in values)
        return [low.astype(jnp.uint32) | high.astype(jnp.uint32) << 16]

    # Nothing lowers it for a CPU, so that there is nothing to put back.
    mlir.register_lowering(
        pack_elementwise_p, mlir.lower_fun(lambda *z, **how: pack(*z, **how)), platform="cpu"
    )


@pytest.mark.usefixtures("packing")
def test_every_word_of_two_is_joined_as_it_was_taken_apart():
    """All 65,536 patterns in either half, in the order of the instruction's documentation; NaN stays NaN."""
    bits = np.arange(2**16, dtype=np.uint32)
    words = bits | np.random.default_rng(0).permutation(bits) << 16
    joined = np.asarray(jax.jit(lambda z: tpu_tiles.joined(list(tpu_tiles.halves(z))))(jnp.asarray(words)))
    for shift in (0, 16):
        before, after = ((z >> shift << 16 & 0xFFFF0000).astype(np.uint32) for z in (words, joined))
        before, after = before.view(np.float32), after.view(np.float32)
        is_nan = np.isnan(before)
        np.testing.assert_array_equal(np.isnan(after), is_nan)
        np.testing.assert_array_equal(before.view(np.uint32)[~is_nan], after.view(np.uint32)[~is_nan])


def test_every_bfloat16_is_stored_rounded_to_even():
    """States at and around the middle between each bfloat16 and the next one: compiled on a TPU, else interpreted.

    The instruction that rounds and packs runs on a TPU alone; elsewhere this shows that the kernel rounds once.
    """
    bits = np.arange(2**16, dtype=np.uint32)
    near = np.random.default_rng(0).choice([0x7FFF, 0x8000, 0x8001], bits.shape).astype(np.uint32)
    value, state = (bits << 16).view(np.float32), (bits << 16 | near).view(np.float32)
    # Of a size at which the difference of the two is a normal number.
    good = np.isfinite(state) & (np.abs(value) > 2.0**-100)
    value, state = np.where(good, value, 1), np.where(good, state, 1)
    x, h0 = (jnp.asarray(z.reshape(64, 1, 1024)) for z in (value, state - value))
    x = x.astype(jnp.bfloat16)
    h, _ = jax.jit(
        partial(linear_scan, implementation="pallas_tpu", interpret=jax.default_backend() != "tpu")
    )(x, jnp.ones_like(x), h0[:, 0])
    np.testing.assert_array_equal(np.asarray(h).reshape(-1), state.astype(jnp.bfloat16))


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
