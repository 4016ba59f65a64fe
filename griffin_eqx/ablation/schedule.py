"""What is to be run, and what next: pure functions of a design and of what has come of its runs. Imports no JAX.

With `tuning = "first"` the first seed tries every learning rate of a cell, and the other seeds train with the best of
them. So which runs there are is known in part only once others have ended; it never depends on the order in which
they did.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from griffin_eqx.ablation.design import Cell, Design, Run, possible_runs, run_of, tunes
from griffin_eqx.ablation.selection import best_learning_rate
from griffin_eqx.training.outcome import SetOutcome


class Done(NamedTuple):
    """A run that has finished.

    Attributes:
      validation: Its outcome on the first set of the validation split.
    """

    validation: SetOutcome


class Broken(NamedTuple):
    """A run that has failed for good.

    Attributes:
      kind: `diverged`, `error` or `crash`.
      reason: What its error said.
    """

    kind: str
    reason: str


Ends = Mapping[Path, Done | Broken]
"""What came of the runs that have ended, by their paths."""


def is_tuned(design: Design, cell: Cell, ends: Ends) -> bool:
    """Whether every run that the choice of a learning rate depends on has ended."""
    return not tunes(design, cell) or all(run.path in ends for run in _first(design, cell))


def chosen(design: Design, cell: Cell, ends: Ends) -> float | None:
    """The learning rate that was best for the first seed, by validation; one whose run failed never is.

    Returns:
      None where runs that it depends on have not ended, or all of them have failed.
    """
    if len(cell.learning_rates) == 1:
        return cell.learning_rates[0]
    runs = _first(design, cell)
    if any(run.path not in ends for run in runs):
        return None
    tried = {
        run.learning_rate: [end.validation if isinstance(end := ends[run.path], Done) else None]
        for run in runs
    }
    return best_learning_rate(tried, cell.metric)


def wanted(design: Design, ends: Ends) -> list[Run]:
    """Every run known to be needed, ended or not: cell by cell, in the order of the design."""
    return [run for cell in design.cells for run in wanted_of(design, cell, ends)]


def wanted_of(design: Design, cell: Cell, ends: Ends) -> list[Run]:
    """The runs of a cell that are known to be needed."""
    if not tunes(design, cell):
        return list(possible_runs(design, cell))
    runs = _first(design, cell)
    rate = chosen(design, cell, ends)
    if rate is not None:
        runs += [run_of(design, cell, rate, seed) for seed in design.seeds[1:]]
    return runs


def due(design: Design, ends: Ends) -> list[Run]:
    """The runs that could start now, the most urgent first.

    That is the one with the longest work behind it, of itself and of what waits for it: a long run that starts last
    leaves all workers but one idle.
    """
    urgent: list[tuple[float, Run]] = []
    for cell in design.cells:
        tuning = not is_tuned(design, cell, ends)
        chain = work(cell) * (2 if tuning else 1)
        urgent += [(chain, run) for run in wanted_of(design, cell, ends) if run.path not in ends]
    return [run for _, run in sorted(urgent, key=lambda pair: -pair[0])]  # stable: else as in the design


def outstanding(design: Design, ends: Ends) -> dict[int, int]:
    """How many runs are still to come, by the index of their cell; those that wait for a choice included."""
    counts = {}
    for index, cell in enumerate(design.cells):
        counts[index] = sum(run.path not in ends for run in wanted_of(design, cell, ends))
        if not is_tuned(design, cell, ends):
            counts[index] += len(design.seeds) - 1
    return counts


def work(cell: Cell) -> float:
    """Training FLOPs of one run."""
    data, steps = cell.config.data, cell.config.train.steps
    return cell.sizes.training_flops_per_token * data.batch_size * data.seq_len * steps


def _first(design: Design, cell: Cell) -> list[Run]:
    return [run_of(design, cell, rate, design.seeds[0]) for rate in cell.learning_rates]
