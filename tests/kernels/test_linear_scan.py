"""Every implementation of the linear scan keeps the laws of scans; wrong arguments are refused by text."""

from functools import partial

import jax.numpy as jnp
import pytest
from griffin_kernels.linear_scan import IMPLEMENTATIONS, Planar, linear_scan

from griffin_eqx.verify import scan_law_tests

pytestmark = pytest.mark.core

test_reference = scan_law_tests(partial(linear_scan, implementation="reference"), complex=True, reverse=True)
test_xla = scan_law_tests(partial(linear_scan, implementation="xla"), complex=True, reverse=True)
test_associative = scan_law_tests(
    partial(linear_scan, implementation="associative"), complex=True, reverse=True
)
# The interpreter's programs are large and slow to compile: `test_pallas_tpu.py` has the other dtypes, and the
# thorough run the laws for all of them.
test_pallas_tpu = scan_law_tests(
    partial(linear_scan, implementation="pallas_tpu", interpret=True), reverse=True, dtypes=("float32",)
)
test_pallas_gpu = scan_law_tests(
    partial(linear_scan, implementation="pallas_gpu", interpret=True), complex=True, reverse=True
)


def test_every_implementation_is_held_to_the_laws():
    assert all(f"test_{name}" in globals() for name in IMPLEMENTATIONS)


X = jnp.zeros((2, 7, 3))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (
            {"a": jnp.zeros((2, 7, 4))},
            ValueError,
            "linear_scan needs x and a of one shape and dtype: got x (2, 7, 3) float32 and a (2, 7, 4) float32. "
            "Did lru_width change between the gate and the input?",
        ),
        (
            {"a": X.astype(jnp.bfloat16)},
            ValueError,
            "linear_scan needs x and a of one shape and dtype: got x (2, 7, 3) float32 and a (2, 7, 3) bfloat16. "
            "Did lru_width change between the gate and the input?",
        ),
        ({"h0": jnp.zeros(3)}, ValueError, "linear_scan needs h0 of shape (2, 3): got (3,)."),
        ({"reset": jnp.zeros(7, bool)}, ValueError, "linear_scan needs reset of shape (2, 7): got (7,)."),
        (
            {"x": jnp.zeros(3), "a": jnp.zeros(3)},
            ValueError,
            "linear_scan needs x of shape [..., seq_len, width]: got (3,).",
        ),
        (
            {"h0": Planar(X[:, 0], X[:, 0])},
            ValueError,
            "linear_scan needs x, a and h0 to be all real arrays or all Planar pairs.",
        ),
        (
            {"x": X.astype(jnp.complex64)},
            TypeError,
            "linear_scan needs real floating arrays: got x of dtype complex64. Pass a Planar(re, im) pair.",
        ),
        (
            {"a": X.astype(jnp.int32)},
            TypeError,
            "linear_scan needs real floating arrays: got a of dtype int32.",
        ),
        (
            {"implementation": "triton"},
            ValueError,
            "linear_scan has no implementation='triton': choose one of "
            f"{', '.join(IMPLEMENTATIONS)}, or None.",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, text):
    with pytest.raises(error) as caught:
        linear_scan(**({"x": X, "a": X} | arguments))
    assert str(caught.value) == text
