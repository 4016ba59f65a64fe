"""`griffin blocks`: the temporal-mixing blocks that a pattern can name."""

import dataclasses
import json
from typing import Any

from griffin_eqx import registry
from griffin_eqx.cli.arguments import Flag, parse


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
    rows = [examine(entry) if switches.check else dataclasses.asdict(entry) for entry in registry.entries()]
    if switches.json:
        print(json.dumps(rows, indent=2))
    else:
        _show(rows)
    return int(any("error" in row for row in rows))


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


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("block", "aliases", "from"):
        table.add_column(title)
    for row in rows:
        table.add_row(
            Text(row["name"], "bold cyan"), Text(" ".join(row["aliases"])), Text(row["distribution"])
        )
    console = Console(highlight=False)
    console.print(table)
    if not rows:
        console.print("No block is installed: griffin_eqx itself must be installed (pip install -e .).")
    for row in rows:
        if "error" in row:
            console.print(Text(f"\n{row['name']}\n", "bold red"), Text(row["error"]), sep="")
        elif "summary" in row:
            options = ", ".join(f"{key}={_written(value)}" for key, value in row["options"].items())
            lines = [row["summary"], row["source"], options, *_skipped(row["not_applicable"])]
            console.print(Text(f"\n{row['name']}", "bold cyan"))
            console.print(Padding(Text("\n".join(filter(None, lines))), (0, 0, 0, 2)))


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "unset" if value is None else str(value)


def _skipped(not_applicable: dict[str, str]) -> list[str]:
    return [f"law {law} does not apply: {reason}" for law, reason in not_applicable.items()]
