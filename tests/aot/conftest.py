"""One child compiles everything for the session; other workers of pytest-xdist wait for what it found."""

import fcntl
import hashlib
import importlib.util
from pathlib import Path

import msgspec
import pytest

from griffin_eqx.aot import environment
from griffin_eqx.aot.jobs import kernel_jobs
from griffin_eqx.aot.report import Job, Result
from griffin_eqx.aot.session import compile_all

from .budgets import DTYPES, ONLY_ON, RAGGED, TARGETS


def session_jobs() -> list[Job]:
    """Every TPU kernel, forward and backward, for every generation and dtype, but for what budgets.py leaves out."""
    everything = {(target, dtype) for target in TARGETS for dtype in DTYPES}
    return [
        job
        for job in kernel_jobs(TARGETS, DTYPES)
        if job.implementation.startswith("pallas_tpu")
        and job.direction != "gradient"
        and (job.target, job.dtype) in ONLY_ON.get(job.case, everything)
    ]


def ragged_jobs() -> list[Job]:
    """The scan over a length that fills no tile."""
    return kernel_jobs(["v5e"], shape=RAGGED, cases=["linear_scan"], implementations=["pallas_tpu"])


@pytest.fixture(scope="session")
def results(request) -> dict[Job, Result]:
    """What the compiler made of all jobs.

    A missing compiler fails the tests with the command that makes it. Nothing is skipped where it could run, so
    that a green suite always means that the kernels were compiled. What was found is kept for the next run, and
    thrown away when a source of the kernels, of the jobs or of the compiler's environment changes.
    """
    reason = environment.unsupported()
    if reason:
        pytest.skip(f"no TPU compiler for this machine: {reason}")
    jobs = session_jobs() + ragged_jobs()
    folder = request.config.cache.mkdir("aot")
    found = folder / f"{_digest(jobs)}.json"
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            compiled = msgspec.json.encode(list(compile_all(jobs)))
            for stale in folder.glob("*.json"):
                stale.unlink()
            found.write_bytes(compiled)
    return {result.job: result for result in msgspec.json.decode(found.read_bytes(), type=list[Result])}


def _digest(jobs: list[Job]) -> str:
    digest = hashlib.sha256(msgspec.json.encode([jobs, str(environment.python())]))
    for package in ("griffin_kernels", "griffin_eqx.aot"):
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        for folder in spec.submodule_search_locations:
            for path in sorted(Path(folder).rglob("*")):
                if path.suffix in (".py", ".txt"):
                    digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
