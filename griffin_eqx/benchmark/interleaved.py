"""Programs timed in turns: the speed of a machine drifts, and must drift for all of them alike."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

SAMPLE_SECONDS = 2e-3
"""A quicker program runs several times a sample: clocks and Python's call would blur it."""

Samples = Mapping[Any, list[float]]
"""Seconds a run of each program, one entry a round."""


def interleave(
    programs: Mapping[Any, Callable[[], Any]],
    rounds: int,
    tell: Callable[[int, Samples], None] = lambda number, samples: None,
) -> Samples:
    """Times programs, each once a round.

    Args:
      programs: By name; each returns when its results are ready.
      rounds: How many; one more is not counted.
      tell: Called after each round with its number, from 1, and all samples so far.
    """
    loops = {name: _runs_a_sample(run) for name, run in programs.items()}
    samples: dict[Any, list[float]] = {name: [] for name in programs}
    for number in range(1, rounds + 1):
        for name, run in programs.items():
            started = time.perf_counter()
            for _ in range(loops[name]):
                run()
            samples[name].append((time.perf_counter() - started) / loops[name])
        tell(number, samples)
    return samples


def _runs_a_sample(run: Callable[[], Any]) -> int:
    run()
    started = time.perf_counter()
    run()
    return max(1, math.ceil(SAMPLE_SECONDS / max(time.perf_counter() - started, 1e-7)))
