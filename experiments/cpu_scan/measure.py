"""Times every design of `designs.py`, and prints the table of the README.

    python experiments/cpu_scan/measure.py --shape 2,2048,1024     # adds lines to results.jsonl
    python experiments/cpu_scan/measure.py --table

Designs take turns with a copy that moves the least bytes: 3 words an element forward, 5 backward. On a machine
that others use too, run it several times: the table has each design's fastest run over the copy's fastest run.
"""

import argparse
import collections
import json
import statistics
import time
from pathlib import Path

import jax
import numpy as np
from designs import DESIGNS

from griffin_eqx.benchmark.interleaved import interleave
from griffin_eqx.cpu_memory import keep_freed_memory

RESULTS = Path(__file__).with_name("results.jsonl")
HOPELESS_SECONDS = 0.5
"""What takes this long is timed once."""

HOPELESS = ("over its inputs", "backward", 2**21)
"""Left out above this many elements: minutes a run."""

COPIES = {
    "forward": lambda x, a, h0: x + a,
    "backward": lambda dh, dh_last, a, h, h0: (-dh, a + h),
}


def measure(shape: tuple[int, int, int], rounds: int, chosen: list[str]) -> None:
    """Adds the times of one shape to the results, of all designs or of those whose names hold a chosen text."""
    batch, _, width = shape
    keys = jax.random.split(jax.random.key(0), 5)
    x, dh = (jax.random.normal(key, shape) for key in keys[:2])
    a = jax.random.uniform(keys[2], shape, minval=0.9)
    h0, dh_last = (jax.random.normal(key, (batch, width)) for key in keys[3:])
    h, _ = jax.jit(DESIGNS["`lax.scan` (`reference`)"][0])(x, a, h0)
    given = {"forward": (x, a, h0), "backward": (dh, dh_last, a, h, h0)}
    for number, direction in enumerate(given):
        programs, compile_seconds, wanted = {}, {}, None
        for name, function in {
            "`lax.scan` (`reference`)": DESIGNS["`lax.scan` (`reference`)"][number],
            "copy": COPIES[direction],
            **{name: design[number] for name, design in DESIGNS.items()},
        }.items():
            unwanted = chosen and not any(text in name for text in ("copy", "reference", *chosen))
            if unwanted or ((name, direction) == HOPELESS[:2] and x.size > HOPELESS[2]):
                continue
            started = time.perf_counter()
            try:
                compiled = jax.jit(function).lower(*given[direction]).compile()
            except jax.errors.JaxRuntimeError as error:
                print(f"{shape} {direction} {name}: {error}")
                continue
            compile_seconds[name] = time.perf_counter() - started
            got = jax.tree.leaves(compiled(*given[direction]))
            wanted = got if wanted is None else wanted
            if name != "copy":
                for one, other in zip(got, wanted, strict=True):
                    # Sums in another order: float32's 6e-8, for each of the some ten steps that a decay of 0.9 recalls.
                    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
            started = time.perf_counter()
            jax.block_until_ready(compiled(*given[direction]))
            if (seconds := time.perf_counter() - started) > HOPELESS_SECONDS:
                _keep(shape, direction, name, compile_seconds[name], [seconds], [])
                continue
            programs[name] = lambda run=compiled, inputs=given[direction]: jax.block_until_ready(run(*inputs))
        samples = interleave(programs, rounds)
        for name, seconds in samples.items():
            _keep(shape, direction, name, compile_seconds[name], seconds, samples["copy"])


def _keep(shape, direction, name, compile_seconds, seconds, copy) -> None:
    line = {
        "shape": shape,
        "pass": direction,
        "design": name,
        "compile_seconds": round(compile_seconds, 2),
        "best_ms": round(min(seconds) * 1e3, 4),
        "median_ms": round(statistics.median(seconds) * 1e3, 4),
        "times_copy": copy
        and round(statistics.median(own / other for own, other in zip(seconds, copy, strict=True)), 3),
    }
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")


def table() -> None:
    """Prints times of the copy, fastest over fastest, for each pass."""
    best: dict = collections.defaultdict(lambda: float("inf"))
    for line in map(json.loads, RESULTS.read_text().splitlines()):
        key = (tuple(line["shape"]), line["pass"], line["design"])
        best[key] = min(best[key], line["best_ms"])
    shapes = sorted({shape for shape, _, _ in best}, key=lambda shape: (shape[1], shape[0], shape[2]))
    for direction in COPIES:
        print(f"\n| {direction} | {' | '.join(','.join(map(str, shape)) for shape in shapes)} |")
        print("| --- |" + " ---: |" * len(shapes))
        for name in DESIGNS:
            ratios = [
                best[shape, direction, name] / best[shape, direction, "copy"]
                if (shape, direction, name) in best
                else None
                for shape in shapes
            ]
            print(f"| {name} | {' | '.join('' if r is None else f'{r:.2g}' for r in ratios)} |")
        copies = [f"{best[shape, direction, 'copy']:.3g}" for shape in shapes]
        print(f"| the copy, ms | {' | '.join(copies)} |")


def main() -> None:
    """Measures, or prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", action="append", default=[])
    parser.add_argument("--design", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    keep_freed_memory()
    for text in given.shape:
        batch, seq_len, width = map(int, text.split(","))
        measure((batch, seq_len, width), given.rounds, given.design)
    if given.table:
        table()


if __name__ == "__main__":
    main()
