"""What the runs of a plan say: each task's variants ranked, with intervals, and paired with the baseline.

The one place where numbers are made: page, Markdown, CSV and terminal show what is here. Learning rates are chosen on
validation; every number of quality is of the test split. Imports no JAX.
"""

import dataclasses
import functools
import itertools
import json
import statistics as stdlib_statistics

import msgspec

from griffin_eqx.ablation.design import Cell
from griffin_eqx.ablation.results import Results, RunRecord, chosen_learning_rate
from griffin_eqx.ablation.selection import metric_of
from griffin_eqx.ablation.statistics import CONFIDENCE, Estimate, estimate, holm, paired
from griffin_eqx.config import Config
from griffin_eqx.task import HIGHER_IS_BETTER, Metric, Split
from griffin_eqx.training.outcome import SetOutcome

ALPHA = 1 - CONFIDENCE


@dataclasses.dataclass(frozen=True)
class SetScore:
    """A variant on one evaluation set of the test split.

    Attributes:
      name: The set's name.
      seq_len: Tokens a row.
      metric: What the task is judged by, over seeds; None where no seed has a finite value.
      loss: Nats a target, likewise.
    """

    name: str
    seq_len: int
    metric: Estimate | None
    loss: Estimate | None


@dataclasses.dataclass(frozen=True)
class Trial:
    """A learning rate that was tried.

    Attributes:
      learning_rate: The peak.
      validation: The metric on the first validation set, over the seeds that finished.
      failed: Runs that failed.
      chosen: Whether it is the variant's own.
    """

    learning_rate: float
    validation: Estimate | None
    failed: int
    chosen: bool


@dataclasses.dataclass(frozen=True)
class Row:
    """A variant on a task.

    Attributes:
      cell: What was planned.
      rank: 1 for the best mean; None without one.
      learning_rate: Its own, chosen on validation; None where nothing could be chosen.
      edge: `lowest` or `highest` where that is the end of the rates that were tried, so that the best may lie
        beyond; empty elsewhere.
      runs: Its runs at that rate.
      score: The metric on the first test set; None where no seed has one.
      difference: From the baseline, seed by seed; None for the baseline itself and without a common seed.
      p_adjusted: Of that difference, adjusted (Holm) over all comparisons of the task, with the baseline and with
        the best; None where there is no p-value.
      from_best: The difference from the best, likewise; None for the best itself.
      tied: Whether it cannot be told from the best: the adjusted p-value of `from_best` is above 5 %, or there is
        none.
      lost: Seeds without a finite number, and why.
      sets: All test sets.
      trials: All learning rates, ascending.
      tokens_per_second: Of training, the median over finished runs.
      peak_bytes: Of a run's process, the largest of finished runs.
    """

    cell: Cell
    rank: int | None
    learning_rate: float | None
    edge: str
    runs: tuple[RunRecord, ...]
    score: Estimate | None
    difference: Estimate | None
    p_adjusted: float | None
    from_best: Estimate | None
    tied: bool
    lost: dict[int, str]
    sets: tuple[SetScore, ...]
    trials: tuple[Trial, ...]
    tokens_per_second: float | None
    peak_bytes: float | None

    @property
    def variant(self) -> str:
        """The variant's name."""
        return self.cell.variant

    @property
    def finished(self) -> tuple[RunRecord, ...]:
        """The runs at its own learning rate that count."""
        return tuple(run for run in self.runs if run.status == "finished")

    @property
    def different(self) -> bool:
        """Whether the difference from the baseline stands after the correction."""
        return self.p_adjusted is not None and self.p_adjusted <= ALPHA


@dataclasses.dataclass(frozen=True)
class Null:
    """Two variants that are the same: what differs between them is chance.

    Attributes:
      first: One name.
      second: The other.
      independent: Whether their weights start from different seeds; otherwise they are the same computation twice.
      difference: Of the second from the first, seed by seed.
    """

    first: str
    second: str
    independent: bool
    difference: Estimate | None


@dataclasses.dataclass(frozen=True)
class TaskResult:
    """A task of the plan.

    Attributes:
      name: Its name in the plan.
      metric: What it is judged by.
      train_length: Tokens a row in training.
      rows: Its variants, best first; those without a number last.
      baseline: The variant that others are compared with.
      nulls: Pairs of variants that are the same.
    """

    name: str
    metric: Metric
    train_length: int
    rows: tuple[Row, ...]
    baseline: str
    nulls: tuple[Null, ...]

    @property
    def ranked(self) -> tuple[Row, ...]:
        """The rows with a number."""
        return tuple(row for row in self.rows if row.rank is not None)

    @property
    def set_names(self) -> tuple[str, ...]:
        """The test sets that any variant was judged on, shortest first."""
        sets = {score.name: score.seq_len for row in self.rows for score in row.sets}
        return tuple(sorted(sets, key=lambda name: sets[name]))


@dataclasses.dataclass(frozen=True)
class Analysis:
    """All of a plan.

    Attributes:
      results: What it was read from.
      tasks: The plan's tasks, in its order.
    """

    results: Results
    tasks: tuple[TaskResult, ...]

    @functools.cached_property
    def variants(self) -> tuple[str, ...]:
        """All variants, in the plan's order: a variant's place here is its colour and marker everywhere."""
        return tuple(dict.fromkeys(cell.variant for cell in self.results.design.cells))

    @property
    def title(self) -> str:
        """One line."""
        plan = self.results.design.plan
        return plan.title or plan.name or self.results.folder.resolve().name


def analyse(results: Results) -> Analysis:
    """Works out every number of the report."""
    names = dict.fromkeys(cell.task for cell in results.design.cells)
    return Analysis(results, tuple(_task(results, name) for name in names))


def _task(results: Results, name: str) -> TaskResult:
    cells = [cell for cell in results.design.cells if cell.task == name]
    metric = cells[0].metric
    rows = [_row(results, cell) for cell in cells]
    rows.sort(key=lambda row: _order(row, metric))
    baseline = results.design.baseline
    base = next((row for row in rows if row.variant == baseline), None)
    best = rows[0] if rows and rows[0].score else None
    rows = [
        dataclasses.replace(
            row,
            rank=place if row.score else None,
            difference=paired(row.score, base.score) if base and row is not base else None,
            from_best=paired(row.score, best.score) if best and row is not best else None,
        )
        for place, row in enumerate(rows, 1)
    ]
    # One family: every comparison that is shown, that of the best with the baseline once. Two families could call
    # one pair both different and not distinguishable.
    compared: dict[str, float | None] = {}
    for row in rows:
        if row.difference:
            compared[_pair(row.variant, baseline)] = row.difference.p_value
        if row.from_best and best:
            compared[_pair(row.variant, best.variant)] = row.from_best.p_value
    adjusted = holm(compared)
    rows = [
        dataclasses.replace(
            row,
            p_adjusted=adjusted.get(_pair(row.variant, baseline)),
            tied=best is not None
            and row.rank not in (None, 1)
            and adjusted.get(_pair(row.variant, best.variant), 1.0) > ALPHA,
        )
        for row in rows
    ]
    return TaskResult(
        name, metric, cells[0].config.data.seq_len, tuple(rows), baseline, _nulls(results, rows)
    )


def _pair(one: str, other: str) -> str:
    return json.dumps(sorted((one, other)))


def _order(row: Row, metric: Metric) -> tuple[bool, float]:
    sign = -1 if HIGHER_IS_BETTER[metric] else 1
    return (row.score is None, sign * row.score.mean if row.score else 0.0)


def _row(results: Results, cell: Cell) -> Row:
    records = results.of_cell(cell)
    rate = chosen_learning_rate(results.design, cell, records)
    runs = tuple(run for run in records if run.learning_rate == rate)
    finished = [run for run in runs if run.status == "finished" and run.outcome]
    firsts = {run.seed: test[0] for run in finished if (test := run.of_split("test"))}
    score = estimate({seed: metric_of(first, cell.metric) for seed, first in firsts.items()})
    speeds = [run.outcome.time["tokens_per_second"] for run in finished if run.outcome and _speed(run)]
    peaks = [
        run.outcome.time["peak_bytes"] for run in finished if run.outcome and "peak_bytes" in run.outcome.time
    ]
    return Row(
        cell=cell,
        rank=None,
        learning_rate=rate,
        edge=_edge(cell, rate),
        runs=runs,
        score=score,
        difference=None,
        p_adjusted=None,
        from_best=None,
        tied=False,
        lost=_lost(results, records if rate is None else runs, score),
        sets=_sets(cell, finished),
        trials=tuple(_trial(results, cell, records, tried, rate) for tried in cell.learning_rates),
        tokens_per_second=stdlib_statistics.median(speeds) if speeds else None,
        peak_bytes=max(peaks, default=None),
    )


def _speed(run: RunRecord) -> bool:
    return run.outcome is not None and bool(run.outcome.time.get("tokens_per_second"))


def _edge(cell: Cell, rate: float | None) -> str:
    rates = cell.learning_rates
    if rate is None or len(rates) < 2 or rate not in (rates[0], rates[-1]):
        return ""
    return "lowest" if rate == rates[0] else "highest"


def _lost(results: Results, runs: tuple[RunRecord, ...], score: Estimate | None) -> dict[int, str]:
    counted = score.values if score else {}
    by_seed = {run.seed: run for run in runs}
    lost = {}
    for seed in results.design.seeds:
        if seed in counted:
            continue
        run = by_seed.get(seed)
        if run is None or run.status == "missing":
            lost[seed] = "not started"
        elif run.status == "finished":
            lost[seed] = "not finite"
        else:
            lost[seed] = (run.failure and run.failure.kind) or run.status
    return lost


def _sets(cell: Cell, finished: list[RunRecord]) -> tuple[SetScore, ...]:
    found: dict[str, dict[int, SetOutcome]] = {}
    for run in finished:
        for outcome in run.of_split("test"):
            found.setdefault(outcome.name, {})[run.seed] = outcome
    return tuple(
        SetScore(
            name,
            next(iter(by_seed.values())).seq_len,
            estimate({seed: metric_of(outcome, cell.metric) for seed, outcome in by_seed.items()}),
            estimate({seed: outcome.loss for seed, outcome in by_seed.items()}),
        )
        for name, by_seed in found.items()
    )


def _trial(
    results: Results, cell: Cell, runs: tuple[RunRecord, ...], tried: float, chosen: float | None
) -> Trial:
    """What a learning rate came to, over the seeds that chose: rates are compared on equal seeds."""
    seeds = results.design.seeds[:1] if results.design.plan.tuning == "first" else results.design.seeds
    here = [run for run in runs if run.learning_rate == tried and run.seed in seeds]
    first = {run.seed: sets[0] for run in here if (sets := run.of_split("validation"))}
    validation = estimate({seed: metric_of(outcome, cell.metric) for seed, outcome in first.items()})
    return Trial(tried, validation, sum(run.status == "failed" for run in here), tried == chosen)


def _nulls(results: Results, rows: list[Row]) -> tuple[Null, ...]:
    plan = results.design.plan
    names = list(plan.variants)
    rows = sorted(rows, key=lambda row: names.index(row.variant))
    return tuple(
        Null(
            first.variant,
            second.variant,
            plan.variants[first.variant].init_seed != plan.variants[second.variant].init_seed,
            paired(second.score, first.score),
        )
        for first, second in itertools.combinations(rows, 2)
        if _without_seeds(first.cell.config) == _without_seeds(second.cell.config)
    )


def _without_seeds(config: Config) -> Config:
    train = msgspec.structs.replace(config.train, seed=0, init_seed=None)
    optimizer = msgspec.structs.replace(config.optimizer, learning_rate=0.0)
    return msgspec.structs.replace(config, train=train, optimizer=optimizer)


def by_position(rows_runs: tuple[RunRecord, ...], name: str, split: Split = "test") -> dict[int, Estimate]:
    """Nats a target by the first position of each bucket, over seeds, on one evaluation set."""
    found: dict[int, dict[int, float | None]] = {}
    for run in rows_runs:
        for outcome in run.of_split(split):
            if outcome.name == name:
                for bucket in outcome.by_position:
                    found.setdefault(bucket.start, {})[run.seed] = bucket.loss
    estimates = {start: estimate(values) for start, values in sorted(found.items())}
    return {start: value for start, value in estimates.items() if value is not None}
