"""The table of kernels, turned into jobs."""

from collections.abc import Iterable

from griffin_kernels.cases import CASES

from griffin_eqx.aot.report import Job

SHAPE = (8, 2048, 2560)
"""Batch, length and width of a recurrent layer at 1.3 to 2 billion parameters; kernels' limits are quoted for it."""


def kernel_jobs(
    targets: Iterable[str],
    dtypes: Iterable[str] = ("float32",),
    shape: tuple[int, int, int] = SHAPE,
    *,
    cases: Iterable[str] = (),
    implementations: Iterable[str] = (),
) -> list[Job]:
    """Lists what to compile: each case, implementation and direction, for each target and dtype.

    Args:
      targets: TPU generations.
      dtypes: `float32`, `bfloat16`.
      shape: Batch, length, width.
      cases: Names in `griffin_kernels.cases`; all if empty.
      implementations: All that a case has if empty.
    """
    cases, implementations = tuple(cases) or tuple(CASES), tuple(implementations)
    return [
        Job(
            case=name,
            implementation=implementation,
            direction=direction,
            dtype=dtype,
            shape=shape,
            target=target,
            limit_words=words,
        )
        for target in targets
        for dtype in dtypes
        for name in cases
        for implementation in CASES[name].implementations
        if not implementations or implementation in implementations
        for direction, words in CASES[name].words.items()
    ]
