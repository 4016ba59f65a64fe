"""`index.sqlite`: the runs of a plan for ad-hoc questions. Disposable: it is rebuilt from the runs' own files.

    sqlite3 runs/my_plan/index.sqlite "select variant, avg(accuracy) from runs join evaluations using (run)
        where chosen and split = 'test' group by variant, name"

Its own `.schema` says what each column means.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from griffin_eqx.ablation.analysis import Analysis
from griffin_eqx.ablation.results import RunRecord

INDEX = "index.sqlite"

SCHEMA = """\
create table runs (
    run integer primary key,
    variant text not null,
    task text not null,         -- the task's name in the plan
    learning_rate real,         -- the peak
    seed integer,
    path text not null,         -- within the plan's folder
    status text not null,       -- finished, failed, unfinished, missing, foreign
    chosen integer not null,    -- 1: at the learning rate chosen on validation, so part of the report's numbers
    reason text,                -- why it failed or is not counted
    steps integer,              -- optimizer steps done
    skipped integer,            -- updates skipped because they were not finite
    tokens integer,             -- trained on
    parameters integer,         -- all, the tied embedding once
    seconds real,               -- of training, in the last session
    tokens_per_second real,     -- of training
    peak_bytes real             -- memory of the process
);
create table evaluations (
    evaluation integer primary key,
    run integer not null references runs,
    split text not null,        -- validation, test
    name text not null,         -- the set's name
    seq_len integer,            -- tokens a row
    rows integer,               -- rows with a target
    targets integer,            -- tokens to predict
    bytes integer,              -- those that are bytes of text
    loss real,                  -- nats a target; null is not finite
    bits_per_byte real,         -- null where the task is no text
    accuracy real,              -- fraction of targets predicted
    exact real                  -- fraction of rows with every target predicted
);
create table buckets (
    evaluation integer not null references evaluations,
    start integer,              -- first position in the row
    stop integer,               -- one behind the last
    targets integer,
    loss real,                  -- nats a target
    accuracy real
);
create table curve (
    run integer not null references runs,
    kind text not null,         -- train, validation, skipped
    step integer not null,
    tokens integer,             -- trained on
    loss real,                  -- nats a target
    bits_per_byte real,
    accuracy real,
    exact real,
    grad_norm real,
    learning_rate real,
    seconds real                -- of training (train) or of the evaluation (validation)
);
create index evaluations_of on evaluations (run);
create index buckets_of on buckets (evaluation);
create index curve_of on curve (run, kind, step);
"""


def write_index(analysis: Analysis, path: Path) -> None:
    """Writes the index anew, whole or not at all."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    chosen = {run.path for task in analysis.tasks for row in task.rows for run in row.runs}
    with contextlib.closing(sqlite3.connect(beside)) as database:
        database.executescript(SCHEMA)
        evaluation = 0
        for number, run in enumerate(analysis.results.runs, 1):
            _insert(database, "runs", [_run(number, run, run.path in chosen)])
            for outcome in run.sets:
                evaluation += 1
                facts = (
                    outcome.split, outcome.name, outcome.seq_len, outcome.rows, outcome.targets, outcome.bytes,
                    outcome.loss, outcome.bits_per_byte, outcome.accuracy, outcome.exact,
                )  # fmt: skip
                _insert(database, "evaluations", [(evaluation, number, *facts)])
                buckets = outcome.by_position
                _insert(
                    database,
                    "buckets",
                    ((evaluation, b.start, b.stop, b.targets, b.loss, b.accuracy) for b in buckets),
                )
            _insert(
                database,
                "curve",
                (
                    (
                        number, point.kind, point.step, point.tokens, point.loss, point.bits_per_byte, point.accuracy,
                        point.exact, point.grad_norm, point.learning_rate, point.time.get("seconds"),
                    )
                    for point in run.curve
                ),
            )  # fmt: skip
        database.commit()
    os.replace(beside, path)


def _run(number: int, run: RunRecord, chosen: bool) -> tuple[Any, ...]:
    outcome = run.outcome
    time = outcome.time if outcome else {}
    return (
        number, run.variant, run.task, run.learning_rate, run.seed, run.path.as_posix(), run.status, int(chosen),
        run.failure.reason if run.failure else run.note or None, run.step,
        outcome and outcome.skipped, outcome and outcome.tokens, outcome and outcome.parameters,
        time.get("seconds"), time.get("tokens_per_second"), time.get("peak_bytes"),
    )  # fmt: skip


def _insert(database: sqlite3.Connection, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
    rows = list(rows)
    if rows:
        database.executemany(f"insert into {table} values ({', '.join('?' * len(rows[0]))})", rows)
