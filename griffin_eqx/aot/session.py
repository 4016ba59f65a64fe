"""Runs jobs in a child process of the compiler's environment. A job that ends the process ends only itself."""

import importlib.util
import json
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
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

TPU_VARIABLES = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
"""What libtpu wants to be told where there is no TPU."""


class Child:
    """A child process that answers requests, started at the first and again after one that ended it.

    Args:
      serves: What answers in it, `module:function`: takes a request and a folder, returns something for JSON.
      python: Its Python.
      variables: Of its environment, on top of ours.
      packages: What it needs of ours: names and the folders or files that they are imported from.
      dump: The folder that `serves` is given, emptied after each request.
      seconds: The longest that a request may take.
      setup: The command that makes its Python anew.
    """

    def __init__(
        self,
        serves: str,
        *,
        python: Path,
        variables: Mapping[str, str],
        packages: Mapping[str, Path],
        dump: Path,
        seconds: float = SECONDS,
        setup: str = environment.SETUP,
    ):
        self._serves, self._python, self._variables = serves, python, variables
        self._packages, self._dump, self._seconds, self._setup = packages, dump, seconds, setup
        self._log = dump.with_name("log")
        self._process: subprocess.Popen[bytes] | None = None
        self.versions: dict[str, str] = {}

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """What came of a request: its `reading`, or an `error` in words.

        Raises:
          GriffinError: If the child does not even start.
        """
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; reading says how
        return self._read()

    def stop(self) -> None:
        """Ends it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> None:
        shutil.rmtree(self._dump, ignore_errors=True)
        self._dump.mkdir()
        inherited = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS",)}
        packages = [f"{name}={folder}" for name, folder in self._packages.items()]
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [str(self._python), "-I", str(CHILD), self._serves, str(self._dump), *packages],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=inherited | dict(self._variables),
            )
        hello = self._read()
        if "versions" not in hello:
            raise GriffinError(
                f"the TPU compiler does not start: {hello['error']}\nIts Python is {self._python}.\n"
                f"Remove that environment and run `{self._setup}` again."
            )
        self.versions = hello["versions"]

    def _read(self) -> dict[str, Any]:
        """The child's next line, or why there is none."""
        assert self._process is not None
        assert self._process.stdout is not None
        if not _ready(self._process.stdout, self._seconds):
            self.stop()
            return {"error": f"no answer within {self._seconds:.0f} s; the compiler was stopped"}
        line = self._process.stdout.readline()
        if line.endswith(b"\n"):
            return json.loads(line)
        code = self._process.wait()
        self.stop()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return {"error": f"the compiler's process ended with {how}: {self._last_words()}"}

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        lines = [line for line in lines if "Failed to find host bounds" not in line]  # said at every start
        # A dying process prints its stack last; what went wrong stands before it.
        telling = [line for line in lines if "Check fail" in line or line.startswith("F") or "Error" in line]
        return (telling or lines or ["it said nothing"])[-1].strip()


class Compiler:
    """A child process that compiles kernels for TPUs.

    >>> with Compiler() as compiler:  # doctest: +SKIP
    ...     result = compiler.compile(job)
    """

    def __init__(self, *, seconds: float = SECONDS):
        self._folder = tempfile.TemporaryDirectory(prefix="griffin-aot-")
        dump = Path(self._folder.name) / "schedules"
        flags = f"--xla_jf_dump_to={dump} --xla_jf_dump_llo_text=true"
        # All other passes would be 70 files a kernel.
        flags += " --xla_jf_dump_llo_pass_label_regex=final_bundles"
        self._child = Child(
            "griffin_eqx.aot.probe:probe",
            python=environment.python(),
            variables=TPU_VARIABLES | {"LIBTPU_INIT_ARGS": flags},
            packages={name: folder_of(name) for name in PACKAGES},
            dump=dump,
            seconds=seconds,
        )

    def __enter__(self) -> "Compiler":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.stop()
        self._folder.cleanup()

    @property
    def versions(self) -> dict[str, str]:
        """Of JAX and libtpu, once it has started."""
        return self._child.versions

    def compile(self, job: Job) -> Result:
        """Compiles one job; what goes wrong is part of the result.

        Raises:
          GriffinError: If the child does not even start.
        """
        answer = self._child.ask(msgspec.to_builtins(job) | {"topology": TARGETS[job.target].topology})
        if "error" in answer:
            return Result(job, error=answer["error"])
        return Result(job, msgspec.convert(answer["reading"], Reading))


def _ready(stream: IO[bytes], seconds: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        return bool(selector.select(seconds))


def folder_of(package: str) -> Path:
    """Where a package lies; the file of a module that is no package."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    if spec.submodule_search_locations is None:
        assert spec.origin is not None
        return Path(spec.origin)
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
