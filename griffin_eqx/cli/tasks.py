"""`griffin tasks`: what a model can be trained on and judged by."""

import dataclasses
from typing import Any

from griffin_eqx import tasks
from griffin_eqx._options import fields_of
from griffin_eqx.cli import offers
from griffin_eqx.cli.arguments import Flag, parse
from griffin_eqx.cli.offers import written


@dataclasses.dataclass(frozen=True)
class Tasks:
    """List every task with its aliases and the distribution it comes from. Nothing is imported.

    Attributes:
      check: Import each task, and show what it is or why it cannot be imported; exit with 1 if one cannot.
      json: Print a JSON list.
    """

    check: Flag = False
    json: Flag = False


def run(argv: list[str]) -> int:
    """Runs the command."""
    switches = parse(Tasks, argv, prog="griffin tasks")
    return offers.run(switches, "task", tasks.entries(), examine, _lines)


def examine(entry: tasks.Entry) -> dict[str, Any]:
    """Imports a task: its entry with summary, source, metric and options, or with `error`."""
    row = dataclasses.asdict(entry)
    try:
        task = tasks.load(entry.name)
    except tasks.RegistryError as error:
        return row | {"error": str(error)}
    options = {name: default for name, (_, default) in fields_of(task.Options).items()}
    return row | {"summary": task.summary, "source": task.source, "metric": task.metric, "options": options}


def _lines(row: dict[str, Any]) -> list[str]:
    options = ", ".join(f"{key}={written(value)}" for key, value in row["options"].items())
    return [row["summary"], row["source"], f"judged by {row['metric']}", options]
