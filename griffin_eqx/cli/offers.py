"""What `griffin blocks` and `griffin tasks` have in common: entries in, a list on the terminal out."""

import dataclasses
import json
from collections.abc import Callable, Iterable
from typing import Any


def run(
    switches: Any,
    noun: str,
    entries: Iterable[Any],
    examine: Callable[[Any], dict[str, Any]],
    lines: Callable[[dict[str, Any]], list[str]],
) -> int:
    """Runs the command; gives the exit code.

    Args:
      switches: Its `check` and `json`.
      noun: What an entry is called.
      entries: All of them, not imported.
      examine: Imports one, and says what it is, or its `error`.
      lines: As in `show`.
    """
    rows = [examine(entry) if switches.check else dataclasses.asdict(entry) for entry in entries]
    if switches.json:
        print(json.dumps(rows, indent=2))
    else:
        show(rows, noun, lines)
    return int(any("error" in row for row in rows))


def show(rows: list[dict[str, Any]], noun: str, lines: Callable[[dict[str, Any]], list[str]]) -> None:
    """Prints a table of entries, and below it what importing each has told.

    Args:
      rows: Entries as dictionaries; those that were imported have `summary`, or `error`.
      noun: What one is called.
      lines: What to print of one that was imported; empty lines are left out.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in (noun, "aliases", "from"):
        table.add_column(title)
    for row in rows:
        table.add_row(
            Text(row["name"], "bold cyan"), Text(" ".join(row["aliases"])), Text(row["distribution"])
        )
    console = Console(highlight=False)
    console.print(table)
    if not rows:
        console.print(f"No {noun} is installed: griffin_eqx itself must be installed (pip install -e .).")
    for row in rows:
        if "error" in row:
            console.print(Text(f"\n{row['name']}\n", "bold red"), Text(row["error"]), sep="")
        elif "summary" in row:
            console.print(Text(f"\n{row['name']}", "bold cyan"))
            console.print(Padding(Text("\n".join(filter(None, lines(row)))), (0, 0, 0, 2)))


def written(value: Any) -> str:
    """An option's default as a pattern has it."""
    return str(value).lower() if isinstance(value, bool) else "unset" if value is None else str(value)
