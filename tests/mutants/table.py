"""The mutation table, and the search for false alarms. From the project's root:

    python -m tests.mutants.table mutants --seeds 1 2 3
    python -m tests.mutants.table correct --seeds 20

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
from griffin_kernels.linear_scan.implementations import FORWARD

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
        if FORWARD.implementations[name].interpretable:
            continue  # Interpreters are slow: the thorough tests hold them to the laws, with more cases.
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


def mutation_table(seeds: list[int]) -> tuple[list[str], bool]:
    """The lines of the table, and whether every mutant was caught on every seed."""
    lines = ["| mistake | law | caught | seconds | tokens | traps |", "| --- | --- | --- | --- | --- | --- |"]
    caught, lengths = 0, []
    for mutant, boards in mutants(seeds):
        hits = [board for board in boards if len(board.broken) == len(board.verdicts)]
        sizes = [seq_len(v.counterexample.case) for board in hits for v in board.broken if v.counterexample]
        known = [size for size in sizes if size is not None]
        lengths += known
        caught += len(hits)
        cells = [
            mutant.name,
            ", ".join(mutant.laws),
            f"{len(hits)}/{len(boards)}",
            f"{statistics.median(board.seconds for board in boards):.1f}",
            f"{statistics.median(known):g}" if known else "",
            " ".join(map(str, mutant.traps)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    tried = len(MUTANTS) * len(seeds)
    lines += [
        "",
        f"Caught {caught} of {tried}: {len(MUTANTS)} mistakes, seeds {', '.join(map(str, seeds))}. Counterexamples "
        f"have a median of {statistics.median(lengths):g} tokens, {max(lengths)} at most.",
    ]
    return lines, caught == tried


def alarm_table(seeds: int) -> tuple[list[str], bool]:
    """The lines of the table, and whether there was no false alarm."""
    lines = ["| correct code | seeds | false alarms | median seconds |", "| --- | --- | --- | --- |"]
    alarms = 0
    for name, boards in correct(seeds):
        wrong = sum(not board.ok for board in boards)
        alarms += wrong
        seconds = statistics.median(board.seconds for board in boards)
        lines.append(f"| {name} | {len(boards)} | {wrong} | {seconds:.1f} |")
    return lines, alarms == 0


def main() -> int:
    """Writes a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=["mutants", "correct"])
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    given = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", 8)
    compile_quickly()
    start = time.time()
    if given.what == "mutants":
        title, (lines, good) = "Planted mistakes", mutation_table(given.seeds)
    else:
        title, (lines, good) = "False alarms", alarm_table(given.seeds[0])
    command = f"python -m tests.mutants.table {given.what} --seeds {' '.join(map(str, given.seeds))}"
    where = f"JAX {jax.__version__}, Python {sys.version.split()[0]}, two shared CPU cores"
    took = f"`{command}`: {(time.time() - start) / 60:.0f} minutes with {where}."
    file = given.out / f"{given.what.upper()}.md"
    file.write_text("\n".join([f"# {title}", "", *lines, "", took, ""]), "utf-8")
    print(file)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
