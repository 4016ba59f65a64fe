"""A Python of its own for the TPU compiler: made once in the user's cache folder, whole or not at all."""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from griffin_eqx.errors import GriffinError

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
OVERRIDE = "GRIFFIN_TPU_ENV"
SETUP = "griffin bench kernels --setup"
SIZE = "0.3 GB to download, 1.1 GB on disk"


class EnvironmentMissing(GriffinError):
    """The compiler's environment is not there, or not whole."""


def pins() -> dict[str, str]:
    """The pinned version of each package.

    >>> sorted(pins())[:3]
    ['jax', 'jaxlib', 'jaxtyping']
    """
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def folder() -> Path:
    """Where the environment is, or will be: `$GRIFFIN_TPU_ENV`, else a folder in the user's cache.

    The name holds what is pinned and which Python, so that another version of either finds no stale one.
    """
    override = os.environ.get(OVERRIDE)
    if override:
        return Path(override).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    python = f"py{sys.version_info.major}.{sys.version_info.minor}"
    return cache / "griffin_eqx" / f"tpu-{_digest()}-{python}"


def _digest() -> str:
    return hashlib.sha256(repr(sorted(pins().items())).encode()).hexdigest()[:10]


def unsupported() -> str | None:
    """Why the compiler cannot run on this machine at all, or None where it can."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return f"libtpu is published for Linux on x86_64 alone; this is {platform.system()} on {platform.machine()}"
    return None


def is_ready() -> bool:
    """Whether the environment is there and whole: it has a Python, and nobody was interrupted while making it."""
    return python_of(folder()).exists() and not _unfinished(folder()).exists()


def _unfinished(environment: Path) -> Path:
    """Stands beside the environment while it is made, so that what an interrupted run leaves is known as such."""
    return environment.with_name(f"{environment.name}.unfinished")


def python_of(environment: Path) -> Path:
    """The interpreter of an environment."""
    return environment / "bin" / "python"


def python(*, setup: str = SETUP) -> Path:
    """The interpreter of the compiler's environment.

    Args:
      setup: The command that makes it, for the error.

    Raises:
      EnvironmentMissing: If there is none, with what to run.
    """
    _require_support()
    if not is_ready():
        raise EnvironmentMissing(
            "the TPU compiler's environment is missing or was left half-made.\n"
            f"Looked in {folder()} (${OVERRIDE} sets another).\n"
            f"Run `{setup}` once: {SIZE}, apart from your own environment."
        )
    return python_of(folder())


def _require_support() -> None:
    reason = unsupported()
    if reason:
        raise EnvironmentMissing(f"the TPU compiler cannot run here: {reason}.\nUse such a machine.")


def set_up(say: Callable[[str], None] = print) -> Path:
    """Makes the environment unless it is there.

    It is made in place, because a virtual environment does not like to be moved. A file beside it says that it
    is unfinished until it is whole, and the next run throws such a one away. A lock keeps two runs from making
    it at once.

    Args:
      say: Told what is done.

    Returns:
      The folder.

    Raises:
      EnvironmentMissing: If it cannot be made: no network, no room, no `venv` module.
    """
    import fcntl

    _require_support()
    target = folder()
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / f"{target.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_ready():
            say(f"the TPU compiler is ready in {target}")
            return target
        half_made = _unfinished(target).exists()
        if target.exists() and any(target.iterdir()) and not half_made:
            raise EnvironmentMissing(
                f"{target} holds something other than the TPU compiler's environment.\n"
                f"Nothing there was touched. Move it away, or set ${OVERRIDE} to an empty folder."
            )
        say(f"making the TPU compiler's environment in {target}: {SIZE}")
        _unfinished(target).touch()
        shutil.rmtree(target, ignore_errors=True)
        versions = ", ".join(
            f"{name} {version}" for name, version in pins().items() if name in ("jax", "libtpu")
        )
        _run([sys.executable, "-m", "venv", str(target)], "venv", target)
        say(f"installing {versions} and what they need ...")
        install = [str(python_of(target)), "-I", "-m", "pip", "install", "--quiet", "--no-deps"]
        _run([*install, "--only-binary", ":all:", "-r", str(REQUIREMENTS)], "pip", target)
        _unfinished(target).unlink()
        say("ready")
        return target


def _run(command: list[str], what: str, target: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(target, ignore_errors=True)
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-4:])
        raise EnvironmentMissing(
            f"the TPU compiler's environment could not be made: {what} said\n{last}\n"
            f"Nothing was left in {target}.\nMend that and run `{SETUP}` again."
        )
