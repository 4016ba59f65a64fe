"""One child compiles everything for the session; other workers of pytest-xdist wait for what it found."""

import fcntl
from pathlib import Path

import msgspec
import pytest

from griffin_eqx.aot import environment
from griffin_eqx.aot.jobs import kernel_jobs
from griffin_eqx.aot.report import Job, Result
from griffin_eqx.aot.session import compile_all

from .budgets import DTYPES, TARGETS


def session_jobs() -> list[Job]:
    """Every TPU kernel, forward and backward, for every generation and dtype."""
    return [
        job
        for job in kernel_jobs(TARGETS, DTYPES)
        if job.implementation.startswith("pallas_tpu") and job.direction != "gradient"
    ]


@pytest.fixture(scope="session")
def compiler():
    """The compiler's Python. A missing one fails the test with the command that makes it; nothing is skipped
    where it could run, so that a green suite always means that the kernels were compiled."""
    reason = environment.unsupported()
    if reason:
        pytest.skip(f"no TPU compiler for this machine: {reason}")
    return environment.python()


@pytest.fixture(scope="session")
def results(compiler, tmp_path_factory, worker_id="master") -> dict[Job, Result]:
    shared = tmp_path_factory.getbasetemp()
    if "popen-gw" in shared.name:  # pytest-xdist: one folder a worker, below that of the session
        shared = shared.parent
    found = Path(shared) / "compiled.json"
    with open(found.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            found.write_bytes(msgspec.json.encode(list(compile_all(session_jobs()))))
    return {result.job: result for result in msgspec.json.decode(found.read_bytes(), type=list[Result])}
