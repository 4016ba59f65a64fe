"""The folder of an ablation: who may write there, and what has come of its runs. Imports no JAX.

```
plan.toml        what was asked for, and base.toml where its base was a file
design.json      what that came to
workers.json     threads a worker: a run goes on with as many as it began with
runs/<variant>/<task>/lr<x>/seed<n>/     run directories, each with `outcome.jsonl` or `failure.json` at its end
.compiled/       JAX's compilation cache, shared by the workers; may be deleted
.workers/        the last words of workers that died; may be deleted
.lock
```
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from griffin_eqx.ablation.design import Cell, Design, Run, possible_runs, run_of
from griffin_eqx.ablation.load import dumps
from griffin_eqx.ablation.plan import Plan
from griffin_eqx.ablation.results import DESIGN, FAILURE, PLAN, Failure
from griffin_eqx.ablation.schedule import Broken, Done
from griffin_eqx.config import load_file, read_text
from griffin_eqx.errors import RunError
from griffin_eqx.training.differences import differences
from griffin_eqx.training.outcome import read_outcome
from griffin_eqx.training.run_directory import CONFIG, replace_file

BASE, WORKERS, COMPILED, LOGS, LOCK = "base.toml", "workers.json", ".compiled", ".workers", ".lock"
_ORPHANS_SECONDS = 10.0
"""How long the workers of a dead process may take to follow it."""


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Keeps every other process out until the block ends.

    Gives the lock's file descriptor. Workers inherit it, so that the folder is free when the last of them has
    ended, however this process ended.

    Raises:
      RunError: If another process runs this ablation, or the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / LOCK).is_symlink():
            raise RunError(
                f"{LOCK} is a link, and nothing is written outside of the folder.\n  {folder / LOCK}\n  Remove it."
            )
        lock = open(folder / LOCK, "a+")  # noqa: SIM115 closed below, and with it the lock
    except OSError as error:
        raise RunError(
            f"The ablation's folder cannot be written to.\n  {folder}\n  {error.strerror}."
        ) from error
    with lock:
        _hold(lock, folder)
        yield lock.fileno()


def _hold(lock: IO[str], folder: Path) -> None:
    deadline = time.monotonic() + _ORPHANS_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip()
            if _lives(holder) or time.monotonic() > deadline:
                raise RunError(
                    f"Another process{f' ({holder})' if holder else ''} runs this ablation.\n"
                    f"  {folder}\n  Wait for it, stop it, or name another folder with --folder."
                ) from None
            time.sleep(0.05)
    lock.truncate(0)
    lock.write(f"process {os.getpid()}\n")
    lock.flush()


def _lives(holder: str) -> bool:
    number = holder.removeprefix("process ")
    if not number.isdecimal():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def ends(folder: Path, design: Design) -> dict[Path, Done | Broken]:
    """What has come of the design's runs, from the disk alone.

    Raises:
      RunError: If an outcome is damaged.
    """
    found: dict[Path, Done | Broken] = {}
    for cell in design.cells:
        for run in possible_runs(design, cell):
            end = end_of(folder, cell, run)
            if end is not None:
                found[run.path] = end
    return found


def end_of(folder: Path, cell: Cell, run: Run) -> Done | Broken | None:
    """What has come of a run; None where it has not ended.

    Raises:
      RunError: If its outcome is damaged.
    """
    outcome = read_outcome(folder / run.path)
    if outcome is not None:
        sets, _ = outcome
        first = next((found for found in sets if found.split == "validation"), None)
        if first is None:
            raise RunError(
                "The outcome has no evaluation of the validation split.\n"
                f"  {folder / run.path}\n  Delete the folder, and run the same command again."
            )
        return Done(first)
    failure = read_failure(folder / run.path)
    return None if failure is None else Broken(failure.kind, failure.reason)


def read_failure(run_dir: Path) -> Failure | None:
    """Reads a run's `failure.json`; None where there is none or it is damaged: then the run is tried again."""
    try:
        return msgspec.json.decode((run_dir / FAILURE).read_bytes(), type=Failure)
    except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
        return None


def write_failure(run_dir: Path, failure: Failure) -> None:
    """Writes it, whole or not at all."""
    run_dir.mkdir(parents=True, exist_ok=True)
    replace_file(run_dir / FAILURE, msgspec.json.format(msgspec.json.encode(failure), indent=2) + b"\n")


def forgive(folder: Path, design: Design) -> int:
    """Lets failed runs be tried again, but for those that diverged: they would again, to the bit.

    Returns:
      How many.
    """
    count = 0
    for cell in design.cells:
        for run in possible_runs(design, cell):
            failure = read_failure(folder / run.path)
            if failure is not None and failure.kind != "diverged":
                (folder / run.path / FAILURE).unlink()
                count += 1
    return count


def threads_of(folder: Path) -> int | None:
    """How many threads the runs of an ablation have; None before it has begun.

    Raises:
      RunError: If that cannot be read.
    """
    path = folder / WORKERS
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["threads"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{WORKERS} cannot be read, so it is unknown how many threads the runs began with.\n"
            f'  {path}: {type(error).__name__}\n  Write {{"threads": 1}} into it, or start in another folder.'
        ) from None


def settle_threads(folder: Path, asked: int | None, usual: int) -> int:
    """How many threads a run has: as when the ablation began, for sums depend on it in their last bits.

    Args:
      folder: The ablation's.
      asked: What the user asks for, if anything.
      usual: What it is where nothing was asked for and nothing is there yet.

    Raises:
      RunError: If something else is asked for than it began with.
    """
    there = threads_of(folder)
    if there is None:
        there = asked or usual
        replace_file(folder / WORKERS, f'{{"threads": {there}}}\n'.encode())
    if asked not in (None, there):
        raise RunError(
            f"The runs of this ablation have {there} threads each, and threads={asked} is asked for: results could "
            f"differ in their last bits.\n  {folder / WORKERS}\n"
            "  Leave --threads out, or start in another folder with --folder."
        )
    return there


def take_design(folder: Path, design: Design) -> None:
    """Writes the design. It may have grown since runs began, but none of them may differ.

    Raises:
      RunError: As `refuse_contradictions`.
    """
    refuse_contradictions(folder, design)
    path, new = folder / DESIGN, msgspec.json.format(msgspec.json.encode(design), indent=1) + b"\n"
    if not path.exists() or path.read_bytes() != new:
        replace_file(path, new)


def refuse_contradictions(folder: Path, design: Design) -> None:
    """Compares the design with every run that has begun.

    Variants, tasks, seeds and learning rates may have come and gone.

    Raises:
      RunError: If a run that has begun would have another configuration, with what differs.
    """
    found = []
    for cell in design.cells:
        for path in sorted((folder / "runs" / cell.variant / cell.task).glob(f"lr*/seed*/{CONFIG}")):
            there = load_file(path)
            now = run_of(design, cell, there.optimizer.learning_rate, there.train.seed).config
            if changed := differences(there, now):
                lines = "".join(f"  {line}\n" for line in changed)
                found.append(
                    f"Runs of {cell.variant!r} on {cell.task!r} have begun with another configuration.\n{lines}"
                )
                break  # The others of the cell differ alike.
    if found:
        raise RunError(
            f"{''.join(found)}  {folder}\n  Name another folder with --folder, or change the plan back."
        )


def keep_plan(folder: Path, plan: Plan) -> None:
    """Writes the plan as a file that means the same wherever the folder is, its base beside it."""
    if plan.base is not None and plan.base.lower().endswith(".toml"):
        replace_file(folder / BASE, read_text(plan.base).encode())
        plan = msgspec.structs.replace(plan, base=BASE)
    replace_file(folder / PLAN, dumps(plan).encode())


def last_words(log: Path) -> str:
    """The last line that a process wrote to its log, or nothing."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip()[:500] if lines else ""
