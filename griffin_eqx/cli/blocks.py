"""`griffin blocks`: the temporal-mixing blocks that a pattern can name."""

import dataclasses
from typing import Any

from griffin_eqx import registry
from griffin_eqx.cli import offers
from griffin_eqx.cli.arguments import Flag, parse
from griffin_eqx.cli.offers import written


@dataclasses.dataclass(frozen=True)
class Blocks:
    """List every block with its aliases and the distribution it comes from. Nothing is imported.

    Attributes:
      check: Import each block, and show what it is or why it cannot be imported; exit with 1 if one cannot.
      json: Print a JSON list.
    """

    check: Flag = False
    json: Flag = False


def run(argv: list[str]) -> int:
    """Runs the command."""
    switches = parse(Blocks, argv, prog="griffin blocks")
    return offers.run(switches, "block", registry.entries(), examine, _lines)


def examine(entry: registry.Entry) -> dict[str, Any]:
    """Imports a block: its entry with summary, source and options, or with `error`."""
    row = dataclasses.asdict(entry)
    try:
        block = registry.load(entry.name)
    except registry.RegistryError as error:
        return row | {"error": str(error)}
    defaults = {name: default for name, (_, default) in registry.option_fields(block).items()}
    return row | {
        "summary": block.summary,
        "source": block.source,
        "options": defaults,
        "not_applicable": dict(block.not_applicable),
    }


def _lines(row: dict[str, Any]) -> list[str]:
    options = ", ".join(f"{key}={written(value)}" for key, value in row["options"].items())
    skipped = [f"law {law} does not apply: {reason}" for law, reason in row["not_applicable"].items()]
    return [row["summary"], row["source"], options, *skipped]
