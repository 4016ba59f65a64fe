"""Runs jobs in a child process of the compiler's environment. A job that ends the process ends only itself."""

import importlib.util
import json
import os
import selectors
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import msgspec

from griffin_eqx.aot import environment
from griffin_eqx.aot.report import Job, Reading, Result
from griffin_eqx.aot.targets import TARGETS
from griffin_eqx.errors import GriffinError

CHILD = Path(__file__).with_name("child.py")
PACKAGES = ("griffin_kernels", "griffin_eqx")
SECONDS = 600.0
"""The longest that one job may take. `associative_scan` over 2,048 steps takes 12 s."""


class Compiler:
    """A child process that compiles, started at the first job and again after one that ended it.

    >>> with Compiler() as compiler:  # doctest: +SKIP
    ...     result = compiler.compile(job)
    """

    def __init__(self, *, seconds: float = SECONDS):
        self._python = environment.python()
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="griffin-aot-")
        self.versions: dict[str, str] = {}

    def __enter__(self) -> "Compiler":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._folder.cleanup()

    def compile(self, job: Job) -> Result:
        """Compiles one job; what goes wrong is part of the result.

        Raises:
          GriffinError: If the child does not even start.
        """
        if self._process is None:
            self._start()
        request = msgspec.to_builtins(job) | {"topology": TARGETS[job.target].topology}
        answer = self._ask(request)
        if "error" in answer:
            return Result(job, error=answer["error"])
        return Result(job, msgspec.convert(answer["reading"], Reading))

    @property
    def _dump(self) -> Path:
        return Path(self._folder.name) / "schedules"

    @property
    def _log(self) -> Path:
        return Path(self._folder.name) / "log"

    def _start(self) -> None:
        self._dump.mkdir(exist_ok=True)
        for stale in self._dump.iterdir():
            stale.unlink()
        flags = f"--xla_jf_dump_to={self._dump} --xla_jf_dump_llo_text=true"
        variables = {
            "JAX_PLATFORMS": "cpu",
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            # All other passes would be 70 files a kernel.
            "LIBTPU_INIT_ARGS": f"{flags} --xla_jf_dump_llo_pass_label_regex=final_bundles",
        }
        inherited = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS",)}
        packages = [f"{name}={_folder_of(name)}" for name in PACKAGES]
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [str(self._python), "-I", str(CHILD), str(self._dump), *packages],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=inherited | variables,
            )
        hello = self._read()
        if "versions" not in hello:
            raise GriffinError(
                f"the TPU compiler does not start: {hello['error']}\nIts Python is {self._python}.\n"
                f"Remove that environment and run `{environment.SETUP}` again."
            )
        self.versions = hello["versions"]

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; reading says how
        return self._read()

    def _read(self) -> dict[str, Any]:
        """The child's next line, or why there is none."""
        assert self._process is not None
        assert self._process.stdout is not None
        if not _ready(self._process.stdout, self._seconds):
            self._stop()
            return {"error": f"no answer within {self._seconds:.0f} s; the compiler was stopped"}
        line = self._process.stdout.readline()
        if line.endswith(b"\n"):
            return json.loads(line)
        code = self._process.wait()
        self._stop()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return {"error": f"the compiler's process ended with {how}: {self._last_words()}"}

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        lines = [line for line in lines if "Failed to find host bounds" not in line]  # said at every start
        # A dying process prints its stack last; what went wrong stands before it.
        telling = [line for line in lines if "Check fail" in line or line.startswith("F") or "Error" in line]
        return (telling or lines or ["it said nothing"])[-1].strip()


def _ready(stream: IO[bytes], seconds: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        return bool(selector.select(seconds))


def _folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)))


def compile_all(jobs: Iterable[Job], begin: Callable[[Job], None] = lambda job: None) -> Iterator[Result]:
    """Compiles jobs one after the other in one child.

    Args:
      jobs: What to compile.
      begin: Told of each job before it is compiled.
    """
    with Compiler() as compiler:
        for job in jobs:
            begin(job)
            yield compiler.compile(job)
