"""The mutation table, and the search for false alarms. From the project's root:

    python -m tests.mutants.table --seeds 1 2 3 --correct-seeds 20 --out tests/mutants/RESULTS.md

Each mutant is held to the laws that must catch it with the settings of `griffin verify`, for each seed; the
built-in blocks and scans are held to all laws. Exit code 0 only if all mutants are caught and nothing else is.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
from griffin_kernels.linear_scan import IMPLEMENTATIONS, linear_scan

from griffin_eqx import registry
from griffin_eqx.cli.verify import compile_quickly
from griffin_eqx.verify import ScoreBoard, verify_block, verify_scan
from griffin_eqx.verify.report import seq_len

from .mutation import BLOCKS, Mutant
from .planted import MUTANTS


def mutants(seeds: list[int]) -> Iterator[tuple[Mutant, list[ScoreBoard]]]:
    """Holds every mutant to its laws, for every seed."""
    for count, mutant in enumerate(MUTANTS, 1):
        boards = [mutant.verify(seed) for seed in seeds]
        # Programs of one mutant are of no use to the next, and would fill the memory.
        jax.clear_caches()
        caught = sum(len(board.broken) == len(board.verdicts) for board in boards)
        print(f"{count}/{len(MUTANTS)} {mutant.name}: caught {caught}/{len(seeds)}", flush=True)
        yield mutant, boards


def correct(seeds: int) -> Iterator[tuple[str, list[ScoreBoard]]]:
    """Holds every built-in block and scan to all laws, for every seed."""
    for name in BLOCKS:
        block = registry.load(name)
        yield _told(name, [verify_block(block, seed=seed) for seed in range(seeds)])
    for name in IMPLEMENTATIONS:
        chosen: Any = name
        scan = partial(linear_scan, implementation=chosen)
        boards = [verify_scan(scan, complex=True, reverse=True, seed=seed) for seed in range(seeds)]
        yield _told(f"linear_scan, {name}", boards)


def _told(name: str, boards: list[ScoreBoard]) -> tuple[str, list[ScoreBoard]]:
    alarms = [board for board in boards if not board.ok]
    print(f"{name}: {len(alarms)} false alarms in {len(boards)} seeds", flush=True)
    for board in alarms:
        print(board, flush=True)
    return name, boards


def main() -> int:
    """Writes the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--correct-seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    compile_quickly()
    start = time.time()
    lines = [
        "# Planted mistakes",
        "",
        "Written by `python -m tests.mutants.table`; the mistakes are in this folder.",
        "",
    ]
    lines += [
        "| mistake | law | caught | seconds | tokens | traps |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    caught, tried, lengths = 0, 0, []
    for mutant, boards in mutants(given.seeds):
        hits = [board for board in boards if len(board.broken) == len(board.verdicts)]
        sizes = [seq_len(v.counterexample.case) for board in hits for v in board.broken if v.counterexample]
        known = [size for size in sizes if size is not None]
        lengths += known
        caught, tried = caught + len(hits), tried + len(boards)
        cells = [
            mutant.name,
            ", ".join(mutant.laws),
            f"{len(hits)}/{len(boards)}",
            f"{statistics.median(board.seconds for board in boards):.1f}",
            f"{statistics.median(known):g}" if known else "",
            " ".join(map(str, mutant.traps)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    tokens = (
        f"median length of a counterexample {statistics.median(lengths):g} tokens, longest {max(lengths)}"
    )
    lines += ["", f"Caught {caught} of {tried} ({len(MUTANTS)} mistakes, seeds {given.seeds}); {tokens}."]
    lines += [
        "",
        "# False alarms",
        "",
        "| correct code | seeds | alarms | median seconds |",
        "| --- | --- | --- | --- |",
    ]
    alarms = 0
    for name, boards in correct(given.correct_seeds):
        wrong = sum(not board.ok for board in boards)
        alarms += wrong
        seconds = statistics.median(board.seconds for board in boards)
        lines.append(f"| {name} | {len(boards)} | {wrong} | {seconds:.1f} |")
    versions = f"JAX {jax.__version__}, Python {sys.version.split()[0]}"
    lines += ["", f"{versions}, {(time.time() - start) / 60:.0f} minutes on two CPU cores.", ""]
    given.out.write_text("\n".join(lines), "utf-8")
    print(f"{caught}/{tried} caught, {alarms} false alarms: {given.out}")
    return int(caught < tried or alarms > 0)


if __name__ == "__main__":
    sys.exit(main())
