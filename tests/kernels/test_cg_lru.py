"""The fused CG-LRU, composed and as TPU kernels in the interpreter, against complex128 loops."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from griffin_kernels.cg_lru import IMPLEMENTATIONS, cg_lru_scan
from griffin_kernels.cg_lru.implementations import FORWARD
from griffin_kernels.cg_lru.oracle import cg_lru_oracle, cg_lru_vjp_oracle
from griffin_kernels.cg_lru.pallas_tpu import cosine_and_sine
from griffin_kernels.linear_scan import Planar
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels.unit_laws import COMPLEX, OUTPUTS, holds, wide
from tests.kernels.unit_laws import draw_complex as draw

pytestmark = pytest.mark.core

NAMES = (*OUTPUTS, *COMPLEX)


@partial(jax.jit, static_argnums=0)
def run(implementation, arguments, cotangents) -> Any:
    """Values and cotangents."""
    *moving, reset, valid = arguments
    scan: Any = partial(cg_lru_scan, implementation=implementation, interpret=True)
    out, pull = jax.vjp(lambda *moving: scan(*moving, reset, valid), *moving)
    return *out, *pull(cotangents)


def equals_the_loops(implementation, drawn, dtype):
    """Roundings to the dtype of what comes in and out, and of the states that the derivative reads; sums in float32."""
    exact, cotangents = map(wide, drawn)
    want = (*cg_lru_oracle(*exact), *cg_lru_vjp_oracle(*exact, *cotangents))
    holds(NAMES, run(implementation, *drawn), want, 3e-5 + (0 if dtype == "float32" else 2.0**-6))


@given(dtype=st.sampled_from(["float32", "bfloat16"]), flags=st.booleans(), seed=st.integers(0, 2**16))
def test_the_composition_equals_the_loops(dtype, flags, seed):
    equals_the_loops("composed", draw(9, dtype, flags, seed), dtype)


@pytest.mark.parametrize(("seq_len", "dtype", "flags"), [(9, "float32", True), (16, "bfloat16", False)])
def test_the_tpu_kernel_equals_the_loops(seq_len, dtype, flags):
    equals_the_loops("pallas_tpu", draw(seq_len, dtype, flags), dtype)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_no_gradient_and_no_nan_crosses_a_reset(implementation):
    (x, r, i, a_param, theta, h0, _, _), (dh, dh_last) = draw(9)
    reset, never = jnp.zeros((2, 9), bool).at[:, 4].set(True), jnp.ones((2, 9), bool)
    spoilt = Planar(x.re.at[:, 2].set(jnp.nan), x.im)
    clean = run(implementation, (x, r, i, a_param, theta, h0, reset, never), (dh, dh_last))
    dirty = run(implementation, (spoilt, r, i, a_param, theta, h0, reset, never), (dh, dh_last))
    for place in (0, 2, 3, 4):
        for one, other in zip(jax.tree.leaves(clean[place]), jax.tree.leaves(dirty[place]), strict=True):
            np.testing.assert_array_equal(one[:, 4:], other[:, 4:], err_msg=NAMES[place])
    late = jax.tree.map(lambda z: z.at[:, :4].set(0), dh)
    later = run(implementation, (x, r, i, a_param, theta, h0, reset, never), (late, dh_last))
    for place in (2, 3, 4):
        for one in jax.tree.leaves(later[place]):
            np.testing.assert_array_equal(one[:, :4], 0, err_msg=NAMES[place])
    np.testing.assert_array_equal(wide(later[7]), 0)


def test_cosine_and_sine_are_exact_to_a_few_roundings():
    turns = np.concatenate([np.linspace(-3, 3, 100_001), [0, 0.25, 0.5, -0.5, 1e-30]]).astype(np.float32)
    cos, sin = cosine_and_sine(jnp.asarray(turns))
    angle = 2 * np.pi * turns.astype(np.float64)
    np.testing.assert_allclose(cos, np.cos(angle), rtol=0, atol=1e-6)
    np.testing.assert_allclose(sin, np.sin(angle), rtol=0, atol=1e-6)


def test_rows_of_a_batch_are_what_they_are_alone():
    (x, r, i, a_param, theta, h0, *_), _ = draw(9)
    h, h_last = jax.vmap(lambda x, r, i, h0: cg_lru_scan(x, r, i, a_param, theta, h0))(x, r, i, h0)
    want, want_last = cg_lru_scan(x, r, i, a_param, theta, h0)
    for one, other in zip(jax.tree.leaves((h, h_last)), jax.tree.leaves((want, want_last)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_nothing_comes_out_of_nothing():
    (_, _, _, a_param, theta, h0, *_), _ = draw(1)
    empty = jnp.zeros((2, 0, 3))
    h, h_last = cg_lru_scan(Planar(empty, empty), empty, empty, a_param, theta, h0)
    assert h.re.shape == (2, 0, 3)
    np.testing.assert_array_equal(wide(h_last), wide(h0))


def test_the_platform_of_the_lowering_chooses():
    arguments, _ = draw(16, width=128)
    exported = jax.export.export(jax.jit(cg_lru_scan), platforms=["tpu"])(*arguments[:5])
    assert exported.mlir_module().count("tpu_custom_call") == 1
    state = jax.tree.map(lambda z: z[0], arguments[5])
    given_arguments = *arguments[:3], state.re, state.re, state, None, None
    assert FORWARD.choose("cpu", *given_arguments, c=8.0).name == "composed"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (
            {"theta": jnp.zeros(4)},
            ValueError,
            "cg_lru_scan needs theta of shape (3,): got (4,), with x of (7, 3).",
        ),
        (
            {"input_gate": jnp.zeros((7, 3), jnp.int32)},
            TypeError,
            "cg_lru_scan needs real floating arrays: got input_gate of dtype int32.",
        ),
        (
            {"implementation": "xla"},
            ValueError,
            "cg_lru_scan has no implementation='xla': choose one of composed, pallas_tpu, or None.",
        ),
    ],
)
def test_wrong_arguments_are_refused(change, error, text):
    z = jnp.zeros((7, 3))
    arguments = {"x": Planar(z, z), "recurrence_gate": z, "input_gate": z, "a_param": z[0], "theta": z[0]}
    with pytest.raises(error) as caught:
        cg_lru_scan(**(arguments | change))
    assert str(caught.value) == text
