"""A Python file as a plugin: what `--plugin FILE` does."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from griffin_eqx import registry, tasks
from griffin_eqx._offers import run_file
from griffin_eqx.errors import RegistryError

if TYPE_CHECKING:
    from griffin_eqx.block import AbstractBlock
    from griffin_eqx.task import AbstractTask


class Added(NamedTuple):
    """What a file brought."""

    blocks: "list[type[AbstractBlock]]"
    tasks: "list[type[AbstractTask]]"


def add_plugin(path: str | Path) -> Added:
    """Runs a Python file and registers every concrete block and task that is defined in it, for this process.

    Raises:
      RegistryError: If the file is missing, fails to run, or defines neither.
    """
    module = run_file(path)
    added = Added(registry.default.add_module(module), tasks.default.add_module(module))
    if not any(added):
        raise RegistryError(
            f"--plugin {path}: it defines no concrete block and no concrete task.\n"
            "One is a subclass of griffin_eqx.AbstractBlock or AbstractTask with a name and every method of the "
            "contract."
        )
    return added
