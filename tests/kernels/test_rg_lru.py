"""The fused RG-LRU, plain and as kernels in interpreters, against float64 loops: values and cotangents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from griffin_kernels.rg_lru import IMPLEMENTATIONS, rg_lru_scan
from griffin_kernels.rg_lru.implementations import FORWARD
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.rg_lru_laws import LAWS, Case, Unit, equals_the_loops

pytestmark = pytest.mark.core


def holds(case: Case, implementation: str):
    equals_the_loops(Unit(rg_lru_scan, implementation), case)


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


@pytest.mark.parametrize("law", ["resets", "padding", "state", "near_one"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_every_implementation_keeps_the_laws(implementation, law):
    """Those of values and cotangents are the tests above, with other sizes and with arguments left out."""
    LAWS[law].hold(Unit(rg_lru_scan, implementation), max_examples=5)


def test_vmap_shares_a_param_and_sums_its_gradient():
    x, r, i, a_param, h0, *_ = Case(9).arrays().inputs

    def loss(a_param):
        return sum(
            z.sum() for z in jax.vmap(lambda x, r, i, h0: rg_lru_scan(x, r, i, a_param, h0))(x, r, i, h0)
        )

    def batched(a_param):
        return sum(z.sum() for z in rg_lru_scan(x, r, i, a_param, h0))

    np.testing.assert_allclose(jax.grad(loss)(a_param), jax.grad(batched)(a_param), rtol=1e-5)


def test_gradients_in_a_checked_shard_map_are_those_of_one_device():
    x, r, i, a_param, *_ = Case(9).arrays().inputs
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
