"""The fused RG-LRU, plain and as kernels in interpreters, against float64 loops: values and cotangents."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from griffin_kernels.rg_lru import IMPLEMENTATIONS, rg_lru_scan
from griffin_kernels.rg_lru.implementations import FORWARD
from griffin_kernels.rg_lru.oracle import rg_lru_oracle, rg_lru_vjp_oracle
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.core

NAMES = ("h", "h_last", "dx", "drecurrence_gate", "dinput_gate", "da_param", "dh0")


@dataclass(frozen=True)
class Case:
    """Sizes, what is given, and the seed of the arrays."""

    seq_len: int
    width: int = 3
    resets: bool = False
    padding: bool = False
    dtype: str = "float32"
    gate_dtype: str = "float32"
    seed: int = 0

    def arrays(self):
        """`(x, recurrence_gate, input_gate, a_param, h0, reset, valid, dh, dh_last)`; some gates are shut or open."""
        rng = np.random.default_rng(self.seed)
        full, state = (2, self.seq_len, self.width), (2, self.width)
        draw = lambda shape, dtype: jnp.asarray(rng.standard_normal(shape), dtype)  # noqa: E731
        shut = jnp.asarray(rng.choice([0, 0, 0, -60, 60], full), self.gate_dtype)
        # From decays of 0.05 a token to 1 - 1e-7.
        a_param = jnp.asarray(rng.uniform(-1, 14, self.width), jnp.float32)
        return (
            draw(full, self.dtype),
            draw(full, self.gate_dtype) + shut,
            draw(full, self.gate_dtype) * 2,
            a_param,
            draw(state, jnp.float32),
            jnp.asarray(rng.random(full[:2]) < 0.3) if self.resets else None,
            jnp.asarray(rng.random(full[:2]) < 0.7) if self.padding else None,
            draw(full, self.dtype),
            draw(state, jnp.float32),
        )


@partial(jax.jit, static_argnums=(0,))
def run(implementation, x, recurrence_gate, input_gate, a_param, h0, reset, valid, dh, dh_last) -> Any:
    def forward(x, recurrence_gate, input_gate, a_param, h0):
        return rg_lru_scan(
            x,
            recurrence_gate,
            input_gate,
            a_param,
            h0,
            reset,
            valid,
            implementation=implementation,
            interpret=True,
        )

    out, pull = jax.vjp(forward, x, recurrence_gate, input_gate, a_param, h0)
    return *out, *pull((dh, dh_last))


def holds(case: Case, implementation: str):
    arrays: Any = case.arrays()
    wide: Any = [
        None if z is None else np.asarray(z, bool if z.dtype == bool else np.float64) for z in arrays
    ]
    want = (*rg_lru_oracle(*wide[:7]), *rg_lru_vjp_oracle(*wide))
    got = run(implementation, *arrays)
    narrow = {"float32": 0.0, "bfloat16": 2.0**-7}
    for name, one, other in zip(NAMES, got, want, strict=True):
        # Roundings to the dtype of the array, of the states that the derivative reads, and of sums in float32;
        # a decay close to 1 carries a float32 rounding of itself over the whole sequence.
        eps = max(narrow[case.dtype], narrow[case.gate_dtype])
        tol = 2 * eps + 3e-5
        size = np.abs(other).max(initial=1.0)
        np.testing.assert_allclose(
            np.asarray(one, np.float64), other, rtol=tol, atol=tol * size, err_msg=name
        )


cases = st.builds(
    Case,
    seq_len=st.sampled_from([1, 2, 9]),
    resets=st.booleans(),
    padding=st.booleans(),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    gate_dtype=st.sampled_from(["float32", "bfloat16"]),
    seed=st.integers(0, 2**16),
)


@given(case=cases)
def test_the_plain_composition_equals_the_loops(case):
    holds(case, "xla")


@pytest.mark.parametrize(
    "case",
    [
        Case(9),
        Case(9, resets=True, padding=True),
        Case(9, resets=True, dtype="bfloat16"),
        Case(8 * 37, width=1, padding=True),
    ],
    ids=str,
)
def test_the_tpu_kernel_equals_the_loops(case):
    holds(case, "pallas_tpu")


@pytest.mark.parametrize(
    "case",
    [
        Case(9, resets=True, padding=True),
        Case(8, width=65, gate_dtype="bfloat16"),
        Case(9, width=66, resets=True, dtype="bfloat16", gate_dtype="bfloat16"),
    ],
    ids=str,
)
def test_the_gpu_kernel_equals_the_loops(case):
    holds(case, "pallas_gpu")


@pytest.mark.thorough
@settings(max_examples=50)
@given(case=cases)
def test_the_gpu_kernel_equals_the_loops_in_every_case(case):
    holds(case, "pallas_gpu")


@pytest.mark.thorough
@settings(max_examples=50)
@given(case=cases)
def test_the_tpu_kernel_equals_the_loops_in_every_case(case):
    holds(case, "pallas_tpu")


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_no_gradient_and_no_nan_crosses_a_reset(implementation):
    x, r, i, a_param, h0, _, _, dh, dh_last = Case(9).arrays()
    reset = jnp.zeros((2, 9), bool).at[:, 4].set(True)
    clean = run(implementation, x, r, i, a_param, h0, reset, None, dh, dh_last)
    dirty = run(implementation, x.at[:, 2].set(jnp.nan), r, i, a_param, h0, reset, None, dh, dh_last)
    np.testing.assert_array_equal(clean[0][:, 4:], dirty[0][:, 4:])
    np.testing.assert_array_equal(clean[2][:, 4:], dirty[2][:, 4:])
    assert np.isnan(dirty[0][:, 2:4]).all()
    later = run(implementation, x, r, i, a_param, h0, reset, None, dh.at[:, :4].set(0), dh_last)
    for name, cotangent in zip(NAMES[2:5], later[2:5], strict=True):
        np.testing.assert_array_equal(cotangent[:, :4], 0, err_msg=name)
    np.testing.assert_array_equal(later[6], 0)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_padding_hands_the_state_on_and_has_no_gradient(implementation):
    x, r, i, a_param, h0, _, _, dh, dh_last = Case(9).arrays()
    valid = jnp.arange(9)[None] < jnp.asarray([[3], [0]])
    dh = jnp.where(valid[..., None], dh, 0)
    padded = run(implementation, x, r, i, a_param, h0, None, valid, dh, dh_last)
    alone = run(
        implementation, *(z[:1, :3] for z in (x, r, i)), a_param, h0[:1], None, None, dh[:1, :3], dh_last[:1]
    )
    np.testing.assert_allclose(padded[1][:1], alone[1], rtol=1e-6)
    np.testing.assert_array_equal(padded[1][1], h0[1])
    np.testing.assert_array_equal(padded[6][1], dh_last[1])
    for name, cotangent in zip(NAMES[2:5], padded[2:5], strict=True):
        np.testing.assert_array_equal(cotangent[:1, 3:], 0, err_msg=name)
        np.testing.assert_array_equal(cotangent[1], 0, err_msg=name)


def test_vmap_shares_a_param_and_sums_its_gradient():
    x, r, i, a_param, h0, *_ = Case(9).arrays()

    def loss(a_param):
        return sum(
            z.sum() for z in jax.vmap(lambda x, r, i, h0: rg_lru_scan(x, r, i, a_param, h0))(x, r, i, h0)
        )

    def batched(a_param):
        return sum(z.sum() for z in rg_lru_scan(x, r, i, a_param, h0))

    np.testing.assert_allclose(jax.grad(loss)(a_param), jax.grad(batched)(a_param), rtol=1e-5)


def test_gradients_in_a_checked_shard_map_are_those_of_one_device():
    x, r, i, a_param, *_ = Case(9).arrays()
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, whole = jax.P("data"), jax.P()
    mapped = jax.shard_map(
        lambda x, r, i, a_param: rg_lru_scan(x, r, i, a_param)[0],
        mesh=mesh,
        in_specs=(rows, rows, rows, whole),
        out_specs=rows,
    )

    def gradients(scan):
        return jax.jit(jax.grad(lambda *z: (scan(*z) ** 2).sum(), (0, 1, 2, 3)))(x, r, i, a_param)

    for got, want in zip(gradients(mapped), gradients(lambda *z: rg_lru_scan(*z)[0]), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_nothing_comes_out_of_nothing():
    h0 = jnp.ones((2, 3))
    empty = jnp.zeros((2, 0, 3))
    h, h_last = rg_lru_scan(empty, empty, empty, jnp.zeros(3), h0)
    assert h.shape == (2, 0, 3)
    np.testing.assert_array_equal(h_last, h0)


def test_the_platform_of_the_lowering_chooses():
    x = jnp.ones((8, 128))
    exported = jax.export.export(jax.jit(rg_lru_scan), platforms=["tpu"])(x, x, x, x[0])
    assert "tpu_custom_call" in exported.mlir_module()
    assert FORWARD.choose("cpu", x, x, x, x[0], x[0], None, None, c=8.0).name == "xla"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (
            {"input_gate": jnp.zeros((7, 4))},
            ValueError,
            "rg_lru_scan needs input_gate of shape (7, 3): got (7, 4), with x of (7, 3).",
        ),
        (
            {"a_param": jnp.zeros(4)},
            ValueError,
            "rg_lru_scan needs a_param of shape (3,): got (4,), with x of (7, 3).",
        ),
        (
            {"x": jnp.zeros((7, 3), jnp.int32)},
            TypeError,
            "rg_lru_scan needs real floating arrays: got x of dtype int32.",
        ),
        (
            {"implementation": "triton"},
            ValueError,
            f"rg_lru_scan has no implementation='triton': choose one of {', '.join(IMPLEMENTATIONS)}, or None.",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, text):
    z = jnp.zeros((7, 3))
    given_arguments = {"x": z, "recurrence_gate": z, "input_gate": z, "a_param": z[0]} | arguments
    with pytest.raises(error) as caught:
        rg_lru_scan(**given_arguments)
    assert str(caught.value) == text
