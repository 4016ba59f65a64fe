"""The table of kernels that compilers and benchmarks read holds functions and arguments that fit together."""

import jax
import pytest
from griffin_kernels.cases import CASES


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_case_can_be_traced(name, dtype):
    case = CASES[name]
    arguments = case.arguments((2, 16, 128), dtype)
    for implementation in case.implementations:
        outputs = jax.eval_shape(
            lambda *a, by=implementation: case.function(*a, implementation=by), *arguments
        )
        first = jax.tree.leaves(outputs)[0]
        assert (first.shape, first.dtype) == ((2, 16, 128), dtype)


def test_names_are_those_of_the_cases():
    assert all(name == case.name for name, case in CASES.items())
    assert "forward" in {direction for case in CASES.values() for direction in case.words}
