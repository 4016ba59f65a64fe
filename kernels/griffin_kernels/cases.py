"""The kernels as compilers and benchmarks see them: functions, argument shapes, and the least that they must move.

One line in a family's `arg_specs.py` adds a kernel to the table of `griffin bench kernels` and to the tests that
compile it for every TPU generation.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

Direction = Literal["forward", "backward", "gradient"]
Shape = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Case:
    """A function of a kernel family with arguments of one kind.

    Attributes:
      name: In tables: `family`, or `family[kind]`.
      implementations: Which of the family's it takes.
      function: Called as `function(*arguments, implementation=...)`.
      arguments: From a shape (batch, length, width) and a dtype's name to `jax.ShapeDtypeStruct`s.
      words: Direction to the least number of words, elements of the arrays' own dtype, that go between memory and
        chip for each element: every array touched once, states and gates' parameters left out (under 0.1 %).
        None where nobody worked it out.
    """

    name: str
    implementations: tuple[str, ...]
    function: Callable[..., Any]
    arguments: Callable[[Shape, str], tuple[Any, ...]]
    words: Mapping[Direction, float | None]


def _all() -> Iterator[Case]:
    from griffin_kernels.cg_lru import arg_specs as cg_lru
    from griffin_kernels.gated_rg_lru import arg_specs as gated_rg_lru
    from griffin_kernels.linear_scan import arg_specs as linear_scan
    from griffin_kernels.rg_lru import arg_specs as rg_lru

    yield from linear_scan.CASES
    yield from rg_lru.CASES
    yield from gated_rg_lru.CASES
    yield from cg_lru.CASES


CASES: dict[str, Case] = {case.name: case for case in _all()}
"""Every case by name."""
