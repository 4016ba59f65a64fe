"""Worker processes on this machine, each with its own cores (`worker.py`). Imports no JAX."""

import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from griffin_eqx.ablation.design import Run
from griffin_eqx.ablation.executor import AbstractExecutor
from griffin_eqx.ablation.folder import COMPILED, LOGS, last_words
from griffin_eqx.ablation.messages import ENDS, Crashed, Event, FromWorker, Job, Ready, Stop, ToWorker, leaves
from griffin_eqx.errors import RunError

WORKER = (sys.executable, "-m", "griffin_eqx.ablation.worker")
_FALSE_STARTS = 3
"""Workers in a row that may die before JAX has started."""


class Pool(AbstractExecutor):
    """Workers, started when there is work for them, and again when they have died.

    Args:
      folder: The ablation's.
      workers: How many at most.
      threads: Cores of each.
      plugins: Files of blocks and tasks that they load.
      inherited: File descriptors that they keep open, such as the folder's lock.
      command: The program of a worker.
    """

    def __init__(
        self,
        folder: Path,
        *,
        workers: int,
        threads: int,
        plugins: Sequence[Path] = (),
        inherited: Sequence[int] = (),
        command: Sequence[str] = WORKER,
    ):
        self._folder = folder
        self._threads = threads
        self._options = [f"--cache={(folder / COMPILED).absolute()}"]
        self._options += [f"--plugin={Path(file).absolute()}" for file in plugins]
        self._inherited = tuple(inherited)
        self._command = tuple(command)
        self._workers: list[_Worker | None] = [None] * workers
        self._leaving: list[_Worker] = []
        self._false_starts = 0
        self._selector = selectors.DefaultSelector()
        (folder / LOGS).mkdir(exist_ok=True)

    @property
    def slots(self) -> int:
        """The number of workers."""
        return len(self._workers)

    @property
    def processes(self) -> list[int]:
        """The process ids of the workers that are there."""
        return [worker.process.pid for worker in self._workers if worker]

    def start(self, run: Run) -> None:
        """Hands a run to an idle worker, preferring one that is there already."""
        idle = [slot for slot, worker in enumerate(self._workers) if worker is None or worker.run is None]
        slot = min(idle, key=lambda slot: self._workers[slot] is None)
        worker = self._workers[slot] or self._begin(slot)
        worker.run = run
        worker.send(Job(run_dir=str(self._folder / run.path), config=run.config))

    def events(self, seconds: float) -> list[tuple[Path, Event]]:
        """Waits for the workers."""
        heard: list[tuple[Path, Event]] = []
        for key, _ in self._selector.select(seconds):
            worker: _Worker = key.data
            messages, ended = worker.read()
            for message in messages:
                if isinstance(message, Ready):
                    self._false_starts, worker.ready = 0, True
                elif worker.run is not None:
                    heard.append((worker.run.path, message))
                    if isinstance(message, ENDS):
                        worker.run = None
                    if leaves(message):
                        self._workers[self._workers.index(worker)] = None
                        self._leaving.append(worker)
            if ended:
                heard += self._bury(worker)
        return heard

    def stop(self) -> None:
        """Asks every worker to save and stop."""
        for worker in self._workers:
            if worker is not None:
                worker.send(Stop())

    def close(self) -> None:
        """Kills the workers."""
        for worker in (*self._workers, *self._leaving):
            if worker is not None:
                worker.process.kill()
                worker.reap()
        self._workers = [None] * len(self._workers)
        self._selector.close()

    def _begin(self, slot: int) -> "_Worker":
        cores = ",".join(map(str, share(slot, self._threads)))
        worker = _Worker(
            [*self._command, f"--cores={cores}", *self._options],
            self._folder / LOGS / f"{slot}.log",
            self._inherited,
        )
        self._selector.register(worker.output, selectors.EVENT_READ, worker)
        self._workers[slot] = worker
        return worker

    def _bury(self, worker: "_Worker") -> list[tuple[Path, Event]]:
        """Takes a worker that has ended off the list; the run that it had has crashed."""
        self._selector.unregister(worker.output)
        if worker in self._leaving:
            self._leaving.remove(worker)
            worker.reap()
            return []
        self._workers[self._workers.index(worker)] = None
        how = worker.epitaph()
        if not worker.ready:
            self._false_starts += 1
            if worker.process.returncode > 0 or self._false_starts >= _FALSE_STARTS:
                raise RunError(
                    f"A worker process does not start: {how}.\n  {worker.log}\n"
                    "  `griffin doctor` checks this machine; that file has all that the worker said."
                )
        return [] if worker.run is None else [(worker.run.path, Crashed(reason=how))]


class _Worker:
    """One process, and the run that it has."""

    def __init__(self, command: list[str], log: Path, inherited: tuple[int, ...]):
        self.run: Run | None = None
        self.ready = False
        self.log = log
        self._rest = b""
        self._decoder = msgspec.json.Decoder(FromWorker)
        log.unlink(missing_ok=True)  # one that is leaving may still write to it
        with open(log, "wb") as errors:
            # In the process group of this one: what stops, continues or ends it as a job of a shell does so to all.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                pass_fds=inherited,
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout

    def send(self, message: ToWorker) -> None:
        with suppress(BrokenPipeError):  # then it has died, and reading tells so
            self.input.write(msgspec.json.encode(message) + b"\n")

    def read(self) -> tuple[list[FromWorker], bool]:
        """What it has said since, without waiting, and whether it will say no more."""
        data = os.read(self.output.fileno(), 1 << 16)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [self._decoder.decode(line) for line in lines], not data

    def epitaph(self) -> str:
        """How it ended."""
        code = self.reap()
        if code < 0:
            name = signal.Signals(-code).name
            how = f"its process was ended by {name}"
            if name == "SIGKILL":
                how += ", as a system short of memory does"
        else:
            how = f"its process ended with exit code {code}"
        words = last_words(self.log)
        return f"{how}: {words}" if words else how

    def reap(self) -> int:
        self.input.close()
        self.output.close()
        return self.process.wait()


def share(slot: int, threads: int) -> list[int]:
    """The cores of a worker: those of this process, dealt out in turn; shared where there are too few.

    >>> len(share(0, 1))
    1
    """
    usable = (
        sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    cores = list(usable)
    return sorted({cores[(slot * threads + i) % len(cores)] for i in range(threads)})
