"""The tables of a report, as text: page, Markdown and terminal show the same cells. Imports no JAX."""

import dataclasses
import json
import os
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from griffin_eqx.ablation import words
from griffin_eqx.ablation.analysis import Analysis, Row, TaskResult
from griffin_eqx.ablation.results import PLAN, Results
from griffin_eqx.ablation.statistics import paired
from griffin_eqx.training.run_directory import CONFIG
from griffin_eqx.units import binary, si


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
      text: What it says.
      order: What its column is sorted by; None goes last.
    """

    text: str
    order: float | int | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
      titles: Of its columns.
      numeric: Which columns are numbers.
      rows: Its cells.
    """

    titles: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[Cell, ...], ...]


def answers(task: TaskResult) -> Table:
    """The ranked answer, one row a variant; the last column holds its marks."""
    scale = words.scale_of(task)
    lengths = sorted({row.cell.sizes.cache_length for row in task.rows})
    at = f" at {lengths[0]:,} tokens" if len(lengths) == 1 else ""
    columns = (
        ("rank", True),
        ("variant", False),
        (f"test {scale.name}" + ("" if scale.name.startswith("bits") else f", {scale.unit}"), True),
        (f"from {task.baseline}, {scale.difference_unit}", True),
        ("p, adjusted", True),
        ("learning rate", True),
        ("seeds", True),
        ("parameters", True),
        ("FLOPs a token", True),
        (f"cache{at}", True),
        ("tokens/s", True),
        ("peak memory", True),
        ("notes", False),
    )
    titles, numeric = zip(*columns, strict=True)
    return Table(titles, numeric, tuple(_answer(row, task, scale) for row in task.rows))


def _answer(row: Row, task: TaskResult, scale: words.Scale) -> tuple[Cell, ...]:
    sizes, score, difference = row.cell.sizes, row.score, row.difference
    return (
        Cell(str(row.rank or ""), row.rank),
        Cell(row.variant),
        Cell(scale.estimate(score), score and score.mean),
        Cell(scale.difference(difference), difference and difference.mean),
        Cell(words.p_value(row.p_adjusted), row.p_adjusted),
        Cell(words.rate(row.learning_rate), row.learning_rate),
        Cell(str(score.n if score else 0), score.n if score else 0),
        Cell(si(sizes.parameters_non_embedding), sizes.parameters_non_embedding),
        Cell(si(sizes.training_flops_per_token), sizes.training_flops_per_token),
        Cell(binary(sizes.cache_bytes), sizes.cache_bytes),
        Cell("" if row.tokens_per_second is None else si(row.tokens_per_second), row.tokens_per_second),
        Cell("" if row.peak_bytes is None else binary(row.peak_bytes), row.peak_bytes),
        Cell("; ".join(words.notes(row, task))),
    )


def sets(task: TaskResult) -> Table | None:
    """Every test set of every variant; None where there is one set only."""
    names = task.set_names
    if len(names) < 2:
        return None
    scale = words.scale_of(task)
    rows = []
    for row in task.ranked:
        scores = {score.name: score.metric for score in row.sets}
        found = [scores.get(name) for name in names]
        rows.append(
            (
                Cell(row.variant),
                *(Cell(scale.estimate(one) if one else "", one and one.mean) for one in found),
            )
        )
    return Table(("variant", *names), (False, *(True for _ in names)), tuple(rows))


def learning_rates(task: TaskResult) -> Table | None:
    """The metric on validation at each learning rate; None where only one was tried."""
    rates = sorted({trial.learning_rate for row in task.rows for trial in row.trials})
    if len(rates) < 2:
        return None
    scale = words.scale_of(task)
    rows = []
    for row in task.rows:
        by_rate = {trial.learning_rate: trial for trial in row.trials}
        cells = []
        for rate in rates:
            trial = by_rate.get(rate)
            if trial is None:
                cells.append(Cell(""))
                continue
            text = scale.estimate(trial.validation) if trial.validation else ""
            text += f" ({trial.failed} failed)" * bool(trial.failed)
            text += " (chosen)" * trial.chosen
            cells.append(Cell(text.strip(), trial.validation and trial.validation.mean))
        rows.append((Cell(row.variant), *cells))
    titles = ("variant", *(words.rate(rate) for rate in rates))
    return Table(titles, (False, *(True for _ in rates)), tuple(rows))


_MEASURES = {
    "params": ("parameters", "{:,.0f}"),
    "flops": ("training FLOPs a token", "{:,.0f}"),
    "cache": ("cache bytes", "{:,.0f}"),
    "step_time": ("seconds a step", "{:.3g}"),
}


def matched(analysis: Analysis) -> Table | None:
    """What was changed to make variants equal, and how well that went; None where nothing was matched."""
    cells = [cell for cell in analysis.results.design.cells if cell.matched]
    if not cells:
        return None
    titles = ("task", "variant", "equal in", "changed", "target", "reached", "off by", "why no nearer")
    rows = []
    for cell in cells:
        match = cell.matched
        assert match is not None
        measure, written = _MEASURES[match.by]
        off = f"{100 * match.mismatch:+.2f} %".replace("-", words.MINUS)
        rows.append(
            (
                Cell(cell.task),
                Cell(cell.variant),
                Cell(measure),
                Cell("; ".join(map(str, match.changes)) or "nothing", match.after),
                Cell(written.format(match.target), match.target),
                Cell(written.format(match.reached), match.reached),
                Cell(off, abs(match.mismatch)),
                Cell(match.nearest),
            )
        )
    return Table(titles, (False, False, False, False, True, True, True, False), tuple(rows))


def patterns(analysis: Analysis) -> Table:
    """What each variant is: its layers and sizes, and where its blocks come from."""
    rows, seen = [], set()
    for cell in analysis.results.design.cells:
        model = cell.config.model
        sizes = (model.pattern, model.width, model.resolved_lru_width, model.resolved_mlp_width)
        if (cell.variant, sizes) not in seen:
            seen.add((cell.variant, sizes))
            blocks = ", ".join(f"{name} from {origin}" for name, origin in cell.blocks.items())
            rows.append(
                (
                    Cell(cell.variant),
                    Cell(sizes[0]),
                    *(Cell(str(n), n) for n in sizes[1:]),
                    Cell(blocks),
                )
            )
    titles = ("variant", "layers", "width", "lru_width", "mlp_width", "blocks")
    return Table(titles, (False, False, True, True, True, False), tuple(rows))


def not_counted(results: Results) -> Table | None:
    """Every run that is not in the numbers, with its reason; None where all are."""
    rows = []
    for run in results.runs:
        if run.status == "finished":
            continue
        failure = run.failure
        why = failure.reason if failure else run.note or (f"stopped at step {run.step:,}" if run.step else "")
        attempts = str(failure.attempts) if failure else ""
        rows.append((Cell(run.path.as_posix()), Cell(run.state), Cell(attempts), Cell(why)))
    return (
        Table(("run", "state", "attempts", "reason"), (False, False, True, False), tuple(rows))
        if rows
        else None
    )


def environment(results: Results) -> Table | None:
    """Versions and machines of the runs; a fact on which they differ has a line a value."""
    facts: dict[str, Counter[str]] = {}
    counted = [run.environment for run in results.runs if run.environment]
    for one in counted:
        for key, value in _flat(one):
            facts.setdefault(key, Counter())[value] += 1
    rows = [
        (Cell(key), Cell(value if len(values) == 1 else f"{value} ({count} of {len(counted)} runs)"))
        for key, values in facts.items()
        for value, count in values.most_common()
    ]
    return Table(("fact", "value"), (False, False), tuple(rows)) if rows else None


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif value not in (None, "", []):
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


def commands(analysis: Analysis) -> list[tuple[str, str]]:
    """What to type to repeat things: `(what it does, command)`."""
    folder = _shown(analysis.results.folder)

    def typed(*words: str | Path) -> str:
        return shlex.join(map(str, ("griffin", *words)))

    anew = Path("runs", "again")
    told = [
        ("the whole plan, anew", typed("ablate", folder / PLAN, "--folder", anew)),
        ("to go on with it; what is finished stays", typed("ablate", folder)),
    ]
    if run := next((run for task in analysis.tasks for row in task.rows for run in row.finished), None):
        what = f"one run: {run.variant} on {run.task}, learning rate {run.learning_rate:g}, seed {run.seed}"
        config = folder / run.path / CONFIG
        told.append((what, typed("train", config, "--run-dir", anew / "run")))
    told.append(("this report, from the files of the runs alone", typed("report", folder)))
    return told


def _shown(folder: Path) -> Path:
    """As it is typed from here."""
    absolute = folder.absolute()
    return Path(os.path.relpath(absolute)) if absolute.is_relative_to(Path.cwd()) else absolute


def csv_rows(analysis: Analysis) -> tuple[list[str], list[list[Any]]]:
    """Every number unrounded, a row for each variant on each test set of each task: `(titles, rows)`."""
    titles = [
        "task", "variant", "set", "seq_len", "metric", "rank", "seeds", "mean", "low", "high",
        "difference", "difference_low", "difference_high", "p_adjusted", "tied_with_best",
        "learning_rate", "learning_rate_at_edge", "loss", "parameters", "parameters_non_embedding",
        "training_flops_per_token", "cache_bytes", "cache_length", "tokens_per_second", "peak_bytes", "seeds_lost",
    ]  # fmt: skip
    rows = []
    for task in analysis.tasks:
        base = next((row for row in task.rows if row.variant == task.baseline), None)
        theirs = {score.name: score.metric for score in base.sets} if base else {}
        for row in task.rows:
            sizes = row.cell.sizes
            for place, score in enumerate(row.sets or (None,)):
                first = place == 0
                found = score and score.metric
                difference = paired(found, theirs.get(score.name)) if score and row is not base else None
                rows.append(
                    [
                        task.name, row.variant, score and score.name, score and score.seq_len, task.metric,
                        row.rank if first else None, found.n if found else 0,
                        found and found.mean, found and found.low, found and found.high,
                        difference and difference.mean, difference and difference.low, difference and difference.high,
                        row.p_adjusted if first else None, row.tied if first else None,
                        row.learning_rate, row.edge, score and score.loss and score.loss.mean,
                        sizes.parameters, sizes.parameters_non_embedding, sizes.training_flops_per_token,
                        sizes.cache_bytes, sizes.cache_length, row.tokens_per_second, row.peak_bytes,
                        words.lost(row),
                    ]
                )  # fmt: skip
    return titles, rows
