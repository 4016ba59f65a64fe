"""One run directory for all processes of a training: the first one writes there, the others read."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from griffin_eqx.config import Config
from griffin_eqx.data import TokenizerFile
from griffin_eqx.errors import RunError
from griffin_eqx.processes import Group
from griffin_eqx.training import run_directory as layout

# How long a shared file system may take to show a new file elsewhere.
_SHOWN_SECONDS = 10.0

# What must be equal in all processes, of the facts in `env.json`: the rest may differ from machine to machine.
_ALIKE = ("packages", "blocks", "mesh", "task", "data", "init_from")


@contextmanager
def claimed(
    group: Group,
    path: Path,
    config: Config,
    facts: dict[str, Any],
    tokenizer: TokenizerFile | None,
) -> Iterator[None]:
    """`run_directory.claimed` by the first process, once all want the same; the others see what it has written.

    Raises:
      RunError: If the processes differ in configuration, data or versions, or one does not see the directory; and
        what `run_directory.claimed` raises.
    """
    _check_alike(group, path, config, facts)
    if group.is_first:
        with layout.claimed(path, config, facts, tokenizer):
            group.told((path / layout.LOCK).read_text() if group.is_several else None)
            yield
    else:
        _wait_to_see(path / layout.LOCK, group.told())
        yield


def _check_alike(group: Group, path: Path, config: Config, facts: dict[str, Any]) -> None:
    if not group.is_several:
        return
    mine: dict[str, Any] = {name: facts.get(name) for name in _ALIKE}
    mine |= {"run directory": str(path), "configuration": config.digest}
    if wrong := group.decided(mine, _difference):
        raise RunError(wrong)


def _difference(values: list[dict[str, Any]]) -> str | None:
    """The message where a process wants something else than process 0."""
    for index, theirs in enumerate(values):
        if changed := _flat_differences(values[0], theirs):
            lines = "".join(f"  {line}\n" for line in changed[:8])
            return (
                f"Process {index} was started for something else than process 0.\n{lines}"
                "  Start all with the same command, the same files and the same environment."
            )
    return None


def _flat_differences(first: Any, other: Any, where: str = "") -> list[str]:
    if isinstance(first, dict) and isinstance(other, dict):
        return [
            line
            for key in sorted({*first, *other})
            for line in _flat_differences(first.get(key), other.get(key), f"{where}.{key}" if where else key)
        ]
    return [] if first == other else [f"{where}: {first} in process 0, {other} there"]


def _wait_to_see(file: Path, content: str) -> None:
    """Until a file holds what another process has written."""
    deadline = time.monotonic() + _SHOWN_SECONDS
    while True:
        try:
            if file.read_text() == content:
                return
        except OSError:
            pass  # not yet
        if time.monotonic() > deadline:
            raise RunError(
                "This process does not see what process 0 writes into the run directory.\n"
                f"  {file.parent.absolute()}\n"
                "  Take a folder on a file system that all machines share, with --run-dir."
            )
        time.sleep(0.1)
