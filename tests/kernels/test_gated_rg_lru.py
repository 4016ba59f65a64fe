"""The RG-LRU with the products of its gates, composed and as TPU kernels in interpreters, against float64 loops."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from griffin_kernels.gated_rg_lru import gated_rg_lru, pallas_tpu
from griffin_kernels.gated_rg_lru.implementations import FORWARD
from griffin_kernels.gated_rg_lru.windows import Windows
from griffin_kernels.rg_lru.oracle import gated_rg_lru_oracle, gated_rg_lru_vjp_oracle
from griffin_kernels.tpu_scan import VMEM_BYTES
from hypothesis import given
from hypothesis import strategies as st
from jax._src.pallas.mosaic.interpret import interpret_pallas_call  # The record of races has no public door.
from jax.experimental.pallas import tpu as pltpu

from tests.kernels.unit_laws import draw_gated as draw
from tests.kernels.unit_laws import holds, wide

pytestmark = pytest.mark.core


def close(got, want, tol):
    """Compares leaf by leaf."""
    got, want = jax.tree.leaves(got), jax.tree.leaves(want)
    holds([""] * len(want), got, want, tol)


def equals_the_loops(arguments, cotangents: Any, run, pull, dtype="float32"):
    """Values and cotangents."""
    # Sums in float32; beside them a rounding of x, of the states that the derivative reads, and of what comes out.
    tol = 1e-5 if dtype == "float32" else 3 * 2.0**-8
    out, exact = run(*arguments), wide(arguments)
    close(out, gated_rg_lru_oracle(*exact), tol)
    close(pull(out[0]), gated_rg_lru_vjp_oracle(*exact, *wide(cotangents)), tol)


def by(implementation, arguments, cotangents, dtype="float32"):
    """Holds one implementation to the loops, as users call it."""
    *moving, reset, valid = arguments

    def scan(*moving: Any) -> Any:
        given: Any = (*moving, reset, valid)
        return gated_rg_lru(*given, implementation=implementation, interpret=True)

    gradients = jax.jit(lambda moving, cotangents: jax.vjp(scan, *moving)[1](cotangents))
    run = jax.jit(lambda *arguments: scan(*arguments[:5]))
    equals_the_loops(arguments, cotangents, run, lambda h: gradients(tuple(moving), cotangents), dtype)


@given(
    dtype=st.sampled_from(["float32", "bfloat16"]),
    flags=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_the_composition_equals_the_loops(dtype, flags, seed):
    arguments, cotangents = draw((2, 9, 6), 2, dtype, flags, seed)
    by("composed", arguments, cotangents, dtype)


@pytest.mark.parametrize(
    ("shape", "blocks", "dtype", "flags"),
    [
        ((2, 9, 128), 2, "float32", True),  # filled up to two tiles; two blocks of a gate in one group
        ((1, 8 * 17, 128), 1, "bfloat16", False),  # two blocks of tokens
        pytest.param((2, 16, 384), 4, "float32", True, marks=pytest.mark.thorough),  # windows that overlap
        pytest.param((2, 24, 640), 4, "bfloat16", True, marks=pytest.mark.thorough),
    ],
)
def test_the_tpu_kernel_equals_the_loops(shape, blocks, dtype, flags):
    arguments, cotangents = draw(shape, blocks, dtype, flags)
    by("pallas_tpu", arguments, cotangents, dtype)


def test_no_race_and_no_uninitialised_memory():
    """In the TPU interpreter, where memory starts as NaN and reads outside an array raise; windows overlap."""
    interpret = pltpu.InterpretParams(
        detect_races=True, uninitialized_memory="nan", out_of_bounds_reads="raise"
    )
    arguments, cotangents = draw((2, 8 * 17, 384), 4, flags=True)
    *moving, h0, reset, valid = arguments
    # Called by themselves, because the TPU interpreter has effects, and `gated_rg_lru` is free of them.
    run = jax.jit(partial(pallas_tpu.forward, c=8.0, interpret=interpret))
    back = jax.jit(partial(pallas_tpu.backward, c=8.0, interpret=interpret))
    pull = lambda h: back(*cotangents, *moving, h, h0, reset, valid)  # noqa: E731
    equals_the_loops(arguments, cotangents, run, pull)
    assert interpret_pallas_call.races is not None  # The interpreter kept a record,
    assert not interpret_pallas_call.races.races_found  # and it is clean.


@pytest.mark.parametrize("side", [16, 64, 96, 128, 160, 192, 256, 320, 384, 512])
def test_windows_hold_every_entry_of_every_block(side):
    """Against the whole matrix, built block by block."""
    windows = Windows.of(side)
    count = 2 * windows.period * 128 // side
    blocks = np.random.default_rng(0).standard_normal((count, side, side)).astype(np.float32)
    whole = np.zeros((count * side, count * side), np.float32)
    for block, z in enumerate(blocks):
        at = slice(block * side, (block + 1) * side)
        whole[at, at] = z
    cut = np.asarray(windows.cut(jnp.asarray(blocks)))
    for group in range(count * side // 128):
        rows = slice(windows.start(group) * 128, (windows.start(group) + windows.size) * 128)
        columns = slice(group * 128, (group + 1) * 128)
        np.testing.assert_array_equal(cut[group], whole[rows, columns])
        whole[rows, columns] = 0
    assert not whole.any()


@pytest.mark.parametrize("width", [1024, 2560, 4096, 5120, 8192])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("seq_len", [8, 120, 2047, 2048])
def test_plans_of_16_gate_blocks_fit_and_cover(width, dtype, seq_len):
    x = jax.ShapeDtypeStruct((8, seq_len, width), jnp.dtype(dtype))
    gate = jax.ShapeDtypeStruct((16, width // 16, width // 16), jnp.float32), None
    for make, copies, arrays, scratch in (
        (pallas_tpu._plan_forward, 1, 2, 2),
        (pallas_tpu._plan_backward, 3, 4, 4),
    ):
        plan = make(x, gate)
        assert plan is not None
        assert plan.grid[0] * plan.groups * 128 == width
        assert plan.groups % plan.windows.period == 0
        assert 0 <= plan.filler < max(8, seq_len // 8)
        assert plan.tokens % 8 == 0
        channels = plan.groups * 128
        weights = copies * channels * plan.windows.size * 128 * 2 * 4
        blocks = plan.tokens * channels * (2 * arrays * x.dtype.itemsize + 4 * scratch)
        assert weights + blocks <= VMEM_BYTES
        assert seq_len % 8 or (seq_len > 128 and seq_len % 128) or not plan.filler


def test_what_the_kernel_cannot_do_it_refuses_with_the_reason():
    def reason(width, blocks, dtype="float32"):
        x = jax.ShapeDtypeStruct((8, 2048, width), jnp.dtype(dtype))
        gate = jax.ShapeDtypeStruct((blocks, width // blocks, width // blocks), jnp.float32), None
        return pallas_tpu.refuses(x, gate)

    assert not reason(2560, 16)
    assert reason(1000, 8) == "the width must be a multiple of 128, and 1000 is not"
    assert reason(128 * 125, 16) == "no block of whole gates of side 1000 fits on the chip"
    assert reason(2560, 16, "float64") == "it knows float32 and bfloat16, not float64"


def test_rows_share_one_call_and_one_sum_of_the_weights_cotangent():
    """`jax.vmap` within a gradient hands all rows over at once."""
    arguments, (dh, _) = draw((2, 9, 6), 2)
    x, r, i, a_param, h0, *_ = arguments

    def loss(r, i, a_param):
        rows = jax.vmap(lambda x, h0: gated_rg_lru(x, r, i, a_param, h0)[0])
        return (rows(x, h0) * dh).sum()

    def batched(r, i, a_param):
        return (gated_rg_lru(x, r, i, a_param, h0)[0] * dh).sum()

    close(jax.grad(loss, (0, 1, 2))(r, i, a_param), wide(jax.grad(batched, (0, 1, 2))(r, i, a_param)), 1e-6)
    text = str(jax.make_jaxpr(jax.grad(loss))(r, i, a_param))
    assert text.count("gated_rg_lru_backward[") == 1
    assert "f32[2,2,3,3]" not in text  # No array of the weights' shape for each row.


def test_gradients_of_single_rows_and_models_side_by_side():
    """Where rows do not share their weights, or want cotangents of their own, each is what it is alone."""
    arguments, (dh, _) = draw((2, 9, 6), 2)
    x, r, i, a_param, *_ = arguments

    def loss(r, x, dh):
        return (gated_rg_lru(x, r, i, a_param)[0] * dh).sum()

    each = jax.vmap(jax.grad(loss), (None, 0, 0))(r, x, dh)
    models = jax.tree.map(lambda z: jnp.stack([z, 2 * z]), r)
    other = jax.vmap(jax.grad(loss), (0, 0, 0))(models, x, dh)
    for row in range(2):
        model = jax.tree.map(lambda z: z[row], models)  # noqa: B023  (used at once)
        close(jax.tree.map(lambda z: z[row], each), wide(jax.grad(loss)(r, x[row], dh[row])), 1e-5)  # noqa: B023
        close(jax.tree.map(lambda z: z[row], other), wide(jax.grad(loss)(model, x[row], dh[row])), 1e-5)  # noqa: B023


def test_a_named_kernel_does_not_run_models_side_by_side():
    arguments, _ = draw((2, 8, 128), 1)
    x, r, i, a_param, *_ = arguments
    models = jax.tree.map(lambda z: jnp.stack([z, z]), r)
    with pytest.raises(NotImplementedError) as caught:
        jax.vmap(lambda r, x: gated_rg_lru(x, r, i, a_param, implementation="pallas_tpu"))(models, x)
    assert str(caught.value) == (
        "gated_rg_lru: implementation='pallas_tpu' has no form in which rows of a batch differ in what they share, as "
        "under a jax.vmap over models. Leave implementation out; that takes 'composed'."
    )


def test_forward_mode_is_refused():
    (x, r, i, a_param, *_), _ = draw((1, 2, 4), 2)
    with pytest.raises(NotImplementedError, match="gated_rg_lru has no forward-mode derivative"):
        jax.jvp(jax.jit(lambda x: gated_rg_lru(x, r, i, a_param)[0]), (x,), (x,))


def test_nothing_comes_out_of_nothing():
    (_, r, i, a_param, h0, *_), _ = draw((2, 1, 4), 2)
    h, h_last = gated_rg_lru(jnp.zeros((2, 0, 4)), r, i, a_param, h0)
    assert h.shape == (2, 0, 4)
    np.testing.assert_array_equal(h_last, h0)


def test_the_platform_of_the_lowering_chooses():
    arguments, _ = draw((1, 16, 128), 2)
    x, r, i, a_param, h0, *_ = arguments
    exported = jax.export.export(jax.jit(gated_rg_lru), platforms=["tpu"])(x, r, i, a_param)
    assert exported.mlir_module().count("tpu_custom_call") == 1
    given_arguments = x, r, i, a_param, h0, None, None
    assert FORWARD.choose("cpu", *given_arguments, c=8.0).name == "composed"
    narrow = x[..., :4], *jax.tree.map(lambda z: z[:, :2, :2] if z.ndim == 3 else z[:, :2], (r, i))
    choice = FORWARD.choose("tpu", *narrow, a_param[:4], h0[..., :4], None, None, c=8.0)
    assert choice.name == "composed"
    assert choice.reason == "pallas_tpu refuses: the width must be a multiple of 128, and 4 is not"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (
            {"input_gate": (jnp.zeros((2, 2, 3)), jnp.zeros((2, 3)))},
            ValueError,
            "gated_rg_lru needs input_gate's weight of shape (2, 2, 2): got (2, 2, 3), with x of (7, 4).",
        ),
        (
            {"a_param": jnp.zeros(3)},
            ValueError,
            "gated_rg_lru needs a_param of shape (4,): got (3,), with x of (7, 4).",
        ),
        (
            {"x": jnp.zeros((7, 4), jnp.int32)},
            TypeError,
            "gated_rg_lru needs real floating arrays: got x of dtype int32.",
        ),
        (
            {"recurrence_gate": (jnp.zeros((3, 2, 2)), jnp.zeros((3, 2)))},
            ValueError,
            "gated_rg_lru cannot cut 4 channels into 3 equal blocks of a gate.",
        ),
        (
            {"implementation": "xla"},
            ValueError,
            "gated_rg_lru has no implementation='xla': choose one of composed, pallas_tpu, or None.",
        ),
    ],
)
def test_wrong_arguments_are_refused(change, error, text):
    gate = jnp.zeros((2, 2, 2)), jnp.zeros((2, 2))
    arguments = {"x": jnp.zeros((7, 4)), "recurrence_gate": gate, "input_gate": gate, "a_param": jnp.zeros(4)}
    with pytest.raises(error) as caught:
        gated_rg_lru(**(arguments | change))
    assert str(caught.value) == text
