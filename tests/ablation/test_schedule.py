"""What runs next: no run is lost, none is done twice, and no order of events changes which runs there are."""

import math
import zlib
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin_eqx.ablation import folder as disk
from griffin_eqx.ablation.campaign import ATTEMPTS, Campaign
from griffin_eqx.ablation.design import possible_runs
from griffin_eqx.ablation.executor import AbstractExecutor
from griffin_eqx.ablation.messages import Crashed, Failed, Finished, Stepped, Stopped
from griffin_eqx.task import Split
from griffin_eqx.training.outcome import RunOutcome, SetOutcome, read_outcome, write_outcome

from .designs import designs

pytestmark = pytest.mark.core


class Killed(BaseException):
    """The whole of it, at once."""


class FakeExecutor(AbstractExecutor):
    """Runs nothing; every event is drawn. What a run comes to is settled beforehand by `fates`."""

    def __init__(self, folder, fates, random, *, kills=True, log=None):
        self.folder, self.fates, self.random, self.kills = folder, fates, random, kills
        self.live = {}
        self.crashes = {}
        self.done = [] if log is None else log
        """Paths in the order in which they ended, over all sessions."""
        self.stopping = False
        self.number = random.randint(1, 3)

    @property
    def slots(self):
        return self.number

    def start(self, run):
        assert run.path not in self.live
        assert len(self.live) < self.number
        assert not self.stopping
        self.live[run.path] = run

    def events(self, seconds):
        path = self.random.choice(sorted(self.live))
        kinds = ["stepped", "end", "end", "crash", "crash after the end", "stopped"]
        kind = self.random.choice(kinds + ["kill"] * self.kills)
        if self.stopping:
            kind = self.random.choice(["end", "stopped"])
        steps = self.live[path].config.train.steps
        if kind == "kill":
            raise Killed
        if kind == "stepped":
            return [(path, Stepped(step=steps, loss=None, tokens_per_second=2.0))]
        if kind.startswith("crash"):
            self.crashes[path] = self.crashes.get(path, 0) + 1
            if self.crashes[path] == ATTEMPTS:
                kind = "end"
        run = self.live.pop(path)
        if kind == "stopped":
            return [(path, Stopped())]
        if kind == "crash":
            return [(path, Crashed(reason="killed"))]
        end = self.finish(run)
        return [(path, end if kind == "end" or isinstance(end, Failed) else Crashed(reason="killed"))]

    def finish(self, run):
        self.done.append(run.path)
        fate = self.fates(run)
        if isinstance(fate, str):
            return Failed(reason=fate, diverged=fate == "diverged")
        outcome(self.folder / run.path, fate)
        return Finished()

    def stop(self):
        self.stopping = True

    def close(self):
        self.live.clear()


def outcome(run_dir, value):
    """An outcome whose every metric on the validation split is `value`, and on test a lie."""
    conditions: list[tuple[Split, str, float | None]] = [
        ("validation", "length 16", value),
        ("validation", "length 32", 1 - (value or 0)),
        ("test", "length 16", 1 - (value or 0)),
    ]
    sets = [
        SetOutcome(
            split=split,
            name=name,
            seq_len=16,
            rows=1,
            targets=1,
            bytes=1,
            loss=score,
            bits_per_byte=score,
            accuracy=math.nan if score is None else score,
            exact=math.nan if score is None else score,
            by_position=(),
        )
        for split, name, score in conditions
    ]
    run_dir.mkdir(parents=True, exist_ok=True)
    write_outcome(run_dir, tuple(sets), RunOutcome(steps=1, skipped=0, tokens=1, parameters=1))


def fates_of(seed):
    """A run's fate: a score of a few, so that there are ties, or how it fails; a function of its path."""

    def fate(run):
        number = zlib.crc32(f"{seed} {run.path}".encode()) % 8
        return {0: "diverged", 1: "error"}.get(number, [0.25, 0.5, 0.75][number % 3])

    return fate


def expected(design, fate):
    """The runs that should have ended at last, said in another way than by `schedule`."""
    paths = set()
    for cell in design.cells:

        def path(rate, seed, cell=cell):
            return Path(f"runs/{cell.variant}/{cell.task}/lr{rate:g}/seed{seed}")

        def value(rate, seed, cell=cell):
            run = next(r for r in possible_runs(design, cell) if (r.learning_rate, r.seed) == (rate, seed))
            return fate(run)

        first, *others = design.seeds
        if design.plan.tuning == "all" or len(cell.learning_rates) == 1:
            paths |= {path(rate, seed) for rate in cell.learning_rates for seed in design.seeds}
            continue
        paths |= {path(rate, first) for rate in cell.learning_rates}
        scores = {rate: value(rate, first) for rate in cell.learning_rates}
        scores = {rate: score for rate, score in scores.items() if not isinstance(score, str)}
        if scores:
            best = (max if cell.metric in ("accuracy", "exact") else min)(scores.values())
            rate = min(rate for rate, score in scores.items() if score == best)
            paths |= {path(rate, seed) for seed in others}
    return paths


def session(folder, design, executor):
    """One session, perhaps killed; whether everything has ended."""
    campaign = Campaign(folder, design, executor)
    stop_at = executor.random.randint(0, 30) if executor.kills else None
    asked = 0

    def stop():
        nonlocal asked
        asked += 1
        return stop_at is not None and asked > stop_at

    def heard(run, event):
        campaign.remaining()

    try:
        return campaign.go(stop, heard)
    except Killed:
        return False


@given(designs(), st.integers(0, 2**20))
def test_whatever_dies_no_run_is_lost_or_done_twice(tmp_path_factory, design, seed):
    random = Random(seed)
    folder, fate, log = tmp_path_factory.mktemp("plan"), fates_of(seed), []
    for _ in range(random.randint(0, 6)):  # killed and stopped sessions, of changing numbers of workers
        session(folder, design, FakeExecutor(folder, fate, random, log=log))
    last = Campaign(folder, design, FakeExecutor(folder, fate, random, kills=False, log=log))
    assert last.go(lambda: False, lambda run, event: None)
    # A run that failed is not heard of by a session that was killed at that moment, so only ends count.
    assert len(log) == len(set(log))
    assert set(log) == expected(design, fate) == set(last.ends)
    assert all(
        (read_outcome(folder / path) is None) == isinstance(fate_of(design, path, fate), str) for path in log
    )
    assert last.counts == (len(log), len(log))
    assert disk.ends(folder, design) == last.ends
    # Again: nothing is left to do.
    assert Campaign(folder, design, FakeExecutor(folder, fate, random, log=log)).go(
        lambda: False, lambda run, event: None
    )
    assert len(log) == len(set(log))


def fate_of(design, path, fate):
    runs = (run for cell in design.cells for run in possible_runs(design, cell))
    return fate(next(run for run in runs if run.path == path))
