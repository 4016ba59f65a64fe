"""Reads the folder of a plan into plain records: what was planned, and what each run came to. Imports no JAX.

Every planned run is in the answer with its status; nothing that is not whole is counted, and nothing is left out
in silence. A damaged file is an error that names file and line.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from griffin_eqx import config as configs
from griffin_eqx.ablation.design import Cell, Design, run_of, tunes
from griffin_eqx.ablation.selection import best_learning_rate
from griffin_eqx.errors import ConfigError, GriffinError
from griffin_eqx.task import Split
from griffin_eqx.training.outcome import OUTCOME, RunOutcome, SetOutcome
from griffin_eqx.training.run_directory import CONFIG, ENV, METRICS

DESIGN, PLAN, FAILURE = "design.json", "plan.toml", "failure.json"

Status = Literal["finished", "failed", "unfinished", "missing", "foreign"]
"""`finished` has an outcome, `failed` a failure and no outcome, `unfinished` neither; `missing` was planned and has
no folder; `foreign` has a folder whose configuration is not the planned one, and is not counted."""

Decoded = TypeVar("Decoded")


class ResultsError(GriffinError):
    """A plan's folder that cannot be read."""

    exit_code = 3


class Failure(msgspec.Struct, frozen=True):
    """Why a run failed, as `failure.json` has it.

    Attributes:
      reason: In words.
      kind: `diverged`, `error` or `crash`.
      attempts: How often it was tried.
    """

    reason: str
    kind: str = "error"
    attempts: int = 1


class CurvePoint(msgspec.Struct, frozen=True):
    """A line of `metrics.jsonl`; None for what it does not say or is not finite."""

    kind: str
    step: int
    loss: float | None = None
    bits_per_byte: float | None = None
    accuracy: float | None = None
    exact: float | None = None
    grad_norm: float | None = None
    learning_rate: float | None = None
    tokens: int | None = None
    skipped: int | None = None
    time: dict[str, float] = {}


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """A planned run and what is there of it.

    Attributes:
      variant: Its variant.
      task: Its task.
      learning_rate: Its peak.
      seed: Its seed.
      path: Its folder, within the plan's.
      status: How far it came.
      failure: Why it failed; None where it did not.
      outcome: What it came to; None where it is not finished.
      sets: Its evaluation sets; none where it is not finished.
      curve: Its metrics, as far as there are any.
      environment: `env.json`; empty where there is none.
      note: What is to be said of it beside its failure.
    """

    variant: str
    task: str
    learning_rate: float
    seed: int
    path: Path
    status: Status
    failure: Failure | None = None
    outcome: RunOutcome | None = None
    sets: tuple[SetOutcome, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    environment: dict[str, Any] = dataclasses.field(default_factory=dict)
    note: str = ""

    @property
    def step(self) -> int:
        """The last step of which something was written."""
        return self.outcome.steps if self.outcome else max((point.step for point in self.curve), default=0)

    @property
    def state(self) -> str:
        """Its status in words."""
        if self.failure:
            return f"failed: {self.failure.kind}"
        return {"missing": "not started", "foreign": "of another plan"}.get(self.status, self.status)

    @property
    def tried(self) -> bool:
        """Whether its learning rate can be judged by it."""
        return self.status in ("finished", "failed")

    def of_split(self, split: Split) -> tuple[SetOutcome, ...]:
        """Its evaluation sets of a split, the conditions of training first."""
        return tuple(outcome for outcome in self.sets if outcome.split == split)


@dataclasses.dataclass(frozen=True)
class Results:
    """All of a plan's folder.

    Attributes:
      folder: Where it lies.
      design: What was planned.
      runs: Every planned run, in the order of the design, then folders of runs that were not planned.
      plan_text: `plan.toml` as it is written; empty where there is none.
    """

    folder: Path
    design: Design
    runs: tuple[RunRecord, ...]
    plan_text: str

    def of_cell(self, cell: Cell) -> tuple[RunRecord, ...]:
        """The runs of a variant on a task that count or could have counted."""
        return tuple(
            run
            for run in self.runs
            if (run.variant, run.task) == (cell.variant, cell.task) and run.status != "foreign"
        )


def read_results(folder: str | Path) -> Results:
    """Reads a plan's folder.

    Raises:
      ResultsError: If it is none, or a file of it is damaged.
    """
    folder = Path(folder)
    design = _read(folder / DESIGN, lambda text: msgspec.json.decode(text, type=Design))
    if design is None:
        raise ResultsError(
            f"This is no folder of an ablation: it has no {DESIGN}.\n  {folder}\n"
            "Name the folder that `griffin ablate` made, such as runs/my_plan."
        )
    plan_text = _read(folder / PLAN, lambda text: text.decode()) or ""
    runs = [run for cell in design.cells for run in _of_cell(folder, design, cell)]
    return Results(folder, design, (*runs, *_unplanned(folder, runs)), plan_text)


def chosen_learning_rate(design: Design, cell: Cell, runs: tuple[RunRecord, ...]) -> float | None:
    """The cell's best learning rate by validation, of the runs that were to choose it; None before there are any.

    Args:
      design: The design.
      cell: The cell.
      runs: Its runs.
    """
    if len(cell.learning_rates) == 1:
        return cell.learning_rates[0]
    seeds = design.seeds[:1] if tunes(design, cell) else design.seeds
    tried = {
        rate: [
            (run.of_split("validation") or (None,))[0]
            for run in runs
            if run.learning_rate == rate and run.seed in seeds and run.tried
        ]
        for rate in cell.learning_rates
    }
    return best_learning_rate(tried, cell.metric)


def _of_cell(folder: Path, design: Design, cell: Cell) -> list[RunRecord]:
    """The cell's runs: those that choose the learning rate, those that follow it, and any other that is there."""
    records = {
        (rate, seed): _record(folder, design, cell, rate, seed)
        for rate in cell.learning_rates
        for seed in design.seeds
    }
    chosen = chosen_learning_rate(design, cell, tuple(records.values()))
    planned = {
        (rate, seed)
        for rate, seed in records
        if not tunes(design, cell) or seed == design.seeds[0] or rate == chosen
    }
    return [run for key, run in records.items() if key in planned or run.status != "missing"]


def _record(folder: Path, design: Design, cell: Cell, learning_rate: float, seed: int) -> RunRecord:
    run = run_of(design, cell, learning_rate, seed)
    record = RunRecord(cell.variant, cell.task, learning_rate, seed, run.path, "missing")
    path = folder / run.path
    if not path.is_dir():
        return record
    if difference := _foreign(path / CONFIG, record, cell):
        return dataclasses.replace(record, status="foreign", note=difference)
    lines = _read_lines(path / OUTCOME, SetOutcome | RunOutcome)
    failure = _read(path / FAILURE, lambda text: msgspec.json.decode(text, type=Failure))
    record = dataclasses.replace(
        record,
        status="finished" if lines is not None else "failed" if failure else "unfinished",
        failure=failure if lines is None else None,
        curve=tuple(_read_lines(path / METRICS, CurvePoint, half_written=True) or ()),
        environment=_read(path / ENV, lambda text: msgspec.json.decode(text, type=dict[str, Any])) or {},
    )
    if lines is None:
        return record
    sets, outcome = tuple(line for line in lines if isinstance(line, SetOutcome)), lines[-1:]
    if not (outcome and isinstance(outcome[0], RunOutcome) and len(sets) == len(lines) - 1):
        raise _damaged(path / OUTCOME, len(lines), "it does not end with the one line of the run")
    return dataclasses.replace(record, sets=sets, outcome=outcome[0])


def _foreign(path: Path, record: RunRecord, cell: Cell) -> str:
    """What of the run's configuration is not as planned; empty where nothing is."""
    if not path.exists():
        return ""
    try:
        there = configs.load_file(path)
    except ConfigError as error:
        raise ResultsError(f"{error}\n  Delete the run's folder and run the plan again.") from None
    found = (there.optimizer.learning_rate, there.train.seed, there.train.steps)
    planned = (record.learning_rate, record.seed, cell.config.train.steps)
    names = ("optimizer.learning_rate", "train.seed", "train.steps")
    return ", ".join(
        f"{name} is {value:g} there and {plan:g} in the design"
        for name, value, plan in zip(names, found, planned, strict=True)
        if value != plan
    )


def _unplanned(folder: Path, runs: list[RunRecord]) -> list[RunRecord]:
    """Folders of runs that the design does not know: those of an older plan."""
    known = {run.path for run in runs}
    found = sorted(path.parent.relative_to(folder) for path in folder.glob(f"runs/*/*/lr*/seed*/{CONFIG}"))
    records = []
    for path in found:
        if path not in known:
            _, variant, task, rate, seed = path.parts
            numbers = _number(rate.removeprefix("lr"), float), _number(seed.removeprefix("seed"), int)
            records.append(RunRecord(variant, task, *numbers, path, "foreign", note="not in the design"))
    return records


def _number(text: str, kind: Callable[[str], Any]) -> Any:
    try:
        return kind(text)
    except ValueError:
        return kind("-1")


def _read(path: Path, decode: Callable[[bytes], Decoded]) -> Decoded | None:
    """The file decoded; None where there is none."""
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        return decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(path, _line_of(text), str(error)) from None


def _read_lines(path: Path, kind: Any, *, half_written: bool = False) -> list[Any] | None:
    """The lines of a JSONL file; None where there is none.

    Args:
      path: The file.
      kind: The type of a line.
      half_written: Whether a last line without an end is one that was being written, and left out.
    """
    text = _read(path, lambda text: text)
    if text is None:
        return None
    lines = text.split(b"\n")
    last = lines.pop()
    if last and not half_written:
        lines.append(last)
    decoder = msgspec.json.Decoder(kind)
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(decoder.decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _damaged(path, number, str(error)) from None
    return found


def _damaged(path: Path, line: int, why: str) -> ResultsError:
    remedy = (
        "Run the plan again: it is written anew."
        if path.name == DESIGN
        else "Delete the run's folder and run the plan again."
    )
    return ResultsError(f"{path}, line {line}: cannot be read: {why}.\n  {remedy}")


def _line_of(text: bytes) -> int:
    """The line where JSON stops being JSON; 1 where it is whole and says something else."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.lineno
    except (ValueError, RecursionError):
        pass
    return 1
