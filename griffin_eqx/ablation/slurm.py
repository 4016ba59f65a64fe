"""Runs as jobs of a SLURM cluster, through submitit: the runs that are due at once become one job array.

Jobs live on without the process that submitted them. Their numbers are kept in `.slurm/jobs.json`, so that the same
command finds them again instead of submitting them twice. A job that reaches its time limit or is preempted is queued
again by submitit and goes on from its last checkpoint.
"""

import importlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from griffin_eqx.ablation.design import Run
from griffin_eqx.ablation.executor import AbstractExecutor
from griffin_eqx.ablation.folder import COMPILED
from griffin_eqx.ablation.messages import Crashed, Event, FromWorker, Stepped, Stopped
from griffin_eqx.ablation.worker import alone
from griffin_eqx.config import Config
from griffin_eqx.errors import GriffinError, RunError
from griffin_eqx.training.metrics import read_metrics
from griffin_eqx.training.run_directory import METRICS, replace_file

JOBS = Path(".slurm", "jobs.json")
_POLL_SECONDS = 5.0


class Submitted:
    """What a job runs; submitit calls `checkpoint` before the job is taken from its machine."""

    def __call__(self, run_dir: str, config: bytes, cache: str, plugins: list[str]) -> bytes:
        """Trains one run, and gives how it ended."""
        return msgspec.json.encode(alone(run_dir, msgspec.json.decode(config, type=Config), cache, plugins))

    def checkpoint(self, *job: Any) -> Any:
        """The same again: a run goes on by itself where it was saved last."""
        return _submitit().helpers.DelayedSubmission(self, *job)


class Cluster(AbstractExecutor):
    """Jobs of a cluster.

    Args:
      folder: The ablation's, on a file system that the machines of the cluster share.
      threads: Cores of each run.
      options: What submitit's `update_parameters` takes: `slurm_partition`, `timeout_min`, `gpus_per_node`, ...
      plugins: Files of blocks and tasks.
      cluster: `slurm`, or one of submitit's stand-ins, `local` and `debug`.
      entry: What a job runs.

    Raises:
      GriffinError: If submitit is not installed, there is no cluster, or an option is none of its.
    """

    def __init__(
        self,
        folder: Path,
        *,
        threads: int,
        options: Mapping[str, Any],
        plugins: Sequence[Path] = (),
        cluster: str = "slurm",
        entry: Callable[..., bytes] | None = None,
    ):
        self._folder = folder.absolute()
        self._common = (str(self._folder / COMPILED), [str(Path(file).absolute()) for file in plugins])
        self._entry = entry or Submitted()
        self._pending: list[Run] = []
        self._jobs: dict[Path, Any] = {}
        self._told: dict[Path, int] = {}
        self._polled = 0.0
        self._stopping = False
        (self._folder / JOBS).parent.mkdir(exist_ok=True)
        try:
            self._executor = _submitit().AutoExecutor(folder=self._folder / ".slurm" / "%j", cluster=cluster)
            self._executor.update_parameters(name="griffin", cpus_per_task=threads, **options)
        except (RuntimeError, ValueError, NameError, TypeError, AssertionError) as error:
            raise GriffinError(
                f"runs cannot be submitted: {error}\nRun this where `sbatch` is, with options that submitit knows, "
                "such as slurm_partition=NAME timeout_min=60."
            ) from None
        self._known: dict[str, str] = self._read()

    @property
    def slots(self) -> int:
        """As many as there are: the cluster queues them."""
        return 10_000

    def start(self, run: Run) -> None:
        """Puts a run on the list for the next array, or finds its job again."""
        job = self._again(run.path)
        if job is None:
            self._pending.append(run)
        else:
            self._jobs[run.path] = job

    def events(self, seconds: float) -> list[tuple[Path, Event]]:
        """Submits what is on the list, and asks the cluster now and then."""
        self._submit()
        time.sleep(seconds)
        if time.monotonic() < self._polled + _POLL_SECONDS:
            return []
        heard: list[tuple[Path, Event]] = []
        for path, job in list(self._jobs.items()):
            if job.done():
                del self._jobs[path]
                heard.append((path, self._end(job)))
            elif (news := self._progress(path)) is not None:
                heard.append((path, news))
        self._write()
        self._polled = time.monotonic()
        return heard

    def stop(self) -> None:
        """Cancels every job: the cluster sends SIGTERM first, and the run saves."""
        self._stopping = True
        self._polled = 0.0
        for job in self._jobs.values():
            job.cancel(check=False)

    def close(self) -> None:
        """Leaves what is under way: the same command finds it again."""

    def _submit(self) -> None:
        if not self._pending or self._stopping:
            return
        runs, self._pending = self._pending, []
        inputs = [
            (str(self._folder / run.path), msgspec.json.encode(run.config), *self._common) for run in runs
        ]
        jobs = self._executor.map_array(self._entry, *map(list, zip(*inputs, strict=True)))
        self._jobs |= {run.path: job for run, job in zip(runs, jobs, strict=True)}
        self._write()

    def _end(self, job: Any) -> Event:
        try:
            return msgspec.json.decode(job.result(), type=FromWorker)
        except Exception as error:  # submitit's errors, and whatever it could not send
            if self._stopping:
                return Stopped()
            return Crashed(reason=f"job {job.job_id}: {(str(error).strip().splitlines() or ['it died'])[-1]}")

    def _progress(self, path: Path) -> Stepped | None:
        """The last line of metrics, where it is news."""
        try:
            lines = [line for line in read_metrics(self._folder / path / METRICS) if line["kind"] == "train"]
        except RunError:  # its last line is being written
            return None
        if not lines or lines[-1]["step"] == self._told.get(path):
            return None
        line = lines[-1]
        self._told[path] = line["step"]
        speed = line["time"]["tokens_per_second"]
        return Stepped(step=line["step"], loss=line["loss"], tokens_per_second=speed)

    def _again(self, path: Path) -> Any:
        """The job that was submitted for a run in an earlier session, if it is still queued or running."""
        number = self._known.pop(str(path), None)
        if number is None:
            return None
        job = self._executor._executor.job_class(folder=self._executor.folder, job_id=number)
        return None if job.done() else job

    def _read(self) -> dict[str, str]:
        try:
            return json.loads((self._folder / JOBS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def _write(self) -> None:
        known = self._known | {str(path): job.job_id for path, job in self._jobs.items()}
        replace_file(self._folder / JOBS, json.dumps(known, indent=1).encode())


def _submitit() -> Any:
    try:
        return importlib.import_module("submitit")
    except ImportError:
        raise GriffinError(
            "running on a cluster needs submitit, which is not installed.\n"
            "Install the extra: pip install 'griffin_eqx[cluster]'"
        ) from None
