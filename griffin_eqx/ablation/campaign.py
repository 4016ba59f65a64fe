"""The loop that runs a design to its end: starts what is due, hears what comes of it, writes down what failed."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

from griffin_eqx.ablation import folder as disk
from griffin_eqx.ablation import schedule
from griffin_eqx.ablation.design import Cell, Design, Run, possible_runs
from griffin_eqx.ablation.estimate import Pace, Range, Timed, remaining
from griffin_eqx.ablation.executor import AbstractExecutor
from griffin_eqx.ablation.messages import (
    ENDS,
    Crashed,
    Event,
    Failed,
    Finished,
    Stepped,
    Stopped,
)
from griffin_eqx.ablation.results import Failure
from griffin_eqx.ablation.schedule import Broken, Done

ATTEMPTS = 3
"""How often a run is tried whose process dies."""

_WAIT_SECONDS = 0.25


@dataclasses.dataclass
class Live:
    """A run that is under way.

    Attributes:
      run: Which.
      cell: The index of its cell.
      since: When it was started, on the monotonic clock.
      first_step: The first step that was heard of; None while it starts and compiles.
      first_at: When it was heard of.
      step: Batches seen.
      loss: Nats a target, at that step.
    """

    run: Run
    cell: int
    since: float
    first_step: int | None = None
    first_at: float = 0.0
    step: int = 0
    loss: float | None = None

    @property
    def fraction(self) -> float:
        """The part that is done, 0 to 1."""
        return self.step / self.run.config.train.steps


class Campaign:
    """An ablation while it runs.

    Args:
      folder: Its folder.
      design: What is to be run.
      executor: What runs it.

    Attributes:
      ends: What has come of each run that has ended, now or before.
      live: The runs that are under way, by path.
      compile_seconds: Seconds that workers spent compiling for the runs that have ended.
      stopping: Whether no run is started any more.
    """

    def __init__(self, folder: Path, design: Design, executor: AbstractExecutor):
        self.folder = folder
        self.design = design
        self.executor = executor
        self.ends = disk.ends(folder, design)
        self.live: dict[Path, Live] = {}
        self.compile_seconds = 0.0
        self.stopping = False
        self.began = time.monotonic()
        self.paces = {index: Pace(schedule.work(cell)) for index, cell in enumerate(design.cells)}
        self._cells = {
            run.path: index for index, cell in enumerate(design.cells) for run in possible_runs(design, cell)
        }
        self._compiled: set[int] = set()
        self._crashes: dict[Path, int] = {}

    def go(self, stop: Callable[[], bool], heard: Callable[[Run | None, Event | None], None]) -> bool:
        """Runs everything that is still to be run.

        Args:
          stop: Asked all the time; once it says True runs are asked to save, and this returns when they have.
          heard: Told of every event of a run, of its start with None as the event, and several times a second of
            nothing.

        Returns:
          Whether everything has ended, in an outcome or a failure.
        """
        while True:
            if stop() and not self.stopping:
                self.stopping = True
                self.executor.stop()
            if not self.stopping:
                self._start(heard)
            if not self.live:
                return not schedule.due(self.design, self.ends)
            for path, event in self.executor.events(_WAIT_SECONDS):
                run = self.live[path].run
                self._take(self.live[path], event)
                heard(run, event)
            heard(None, None)

    def remaining(self) -> Range | None:
        """How long it will still take."""
        spent = [(live.cell, live.fraction) for live in self.live.values()]
        return remaining(self.paces, schedule.outstanding(self.design, self.ends), spent, self.executor.slots)

    def cell_of(self, run: Run) -> Cell:
        """The cell that a run belongs to."""
        return self.design.cells[self._cells[run.path]]

    @property
    def counts(self) -> tuple[int, int]:
        """Runs that have ended, and all."""
        done = sum(run.path in self.ends for run in schedule.wanted(self.design, self.ends))
        return done, done + sum(schedule.outstanding(self.design, self.ends).values())

    def _start(self, heard: Callable[[Run | None, Event | None], None]) -> None:
        due = [run for run in schedule.due(self.design, self.ends) if run.path not in self.live]
        while due and len(self.live) < self.executor.slots:
            run = self._next(due)
            due.remove(run)
            self.live[run.path] = Live(run, self._cells[run.path], time.monotonic())
            self.executor.start(run)
            heard(run, None)

    def _next(self, due: list[Run]) -> Run:
        """The most urgent run; but rather one whose program nobody is just compiling, for that will be shared."""
        busy = {live.cell for live in self.live.values() if live.first_step is None} - self._compiled
        return next((run for run in due if self._cells[run.path] not in busy), due[0])

    def _take(self, live: Live, event: Event) -> None:
        path, pace = live.run.path, self.paces[live.cell]
        if isinstance(event, Stepped):
            if live.first_step is None:
                live.first_step, live.first_at = event.step, time.monotonic()
                self._compiled.add(live.cell)
            live.step, live.loss = event.step, event.loss
            data, steps = live.run.config.data, live.run.config.train.steps
            rest = steps * data.batch_size * data.seq_len / event.tokens_per_second
            pace.projected = Timed(live.first_at - live.since, rest)
        if not isinstance(event, ENDS):
            return
        if isinstance(event, Finished | Stopped):
            self.compile_seconds += event.compile_seconds
        del self.live[path]
        # Whatever was said, the disk decides: a worker may have died when all was done.
        cell = self.design.cells[live.cell]
        end = disk.end_of(self.folder, cell, live.run)
        if end is None:
            end = self._broken(path, event)
        if isinstance(end, Done) and live.first_step is not None and live.first_step < live.step / 10:
            pace.runs.append(Timed(live.first_at - live.since, time.monotonic() - live.first_at))
        if end is not None:
            self.ends[path] = end

    def _broken(self, path: Path, event: Event) -> Broken | None:
        """What a run comes to that has ended without an outcome; None where it is to be gone on with."""
        if isinstance(event, Failed):
            failure = Failure(reason=event.reason, kind="diverged" if event.diverged else "error")
        elif isinstance(event, Crashed):
            self._crashes[path] = self._crashes.get(path, 0) + 1
            if self._crashes[path] < ATTEMPTS:
                return None
            failure = Failure(reason=event.reason, kind="crash", attempts=ATTEMPTS)
        elif isinstance(event, Finished):
            failure = Failure(reason="It reached its last step, but there is no outcome.jsonl.", kind="error")
        else:
            return None
        disk.write_failure(self.folder / path, failure)
        return Broken(failure.kind, failure.reason)
