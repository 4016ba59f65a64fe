"""The score-board while it fills, and the report behind it, on a terminal."""

import sys
import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from griffin_eqx.verify.report import SIGNS, explanations, note, summary
from griffin_eqx.verify.verdict import ScoreBoard, Verdict

_STYLES = {"holds": "green", "broken": "bold red", "not applicable": "dim"}


class Board:
    """Shows each verdict as soon as it is known; on a terminal the law at hand counts its seconds."""

    def __init__(self, subject: str, laws: list[str]):
        self._console = Console(highlight=False, file=sys.stdout)
        self._subject = subject
        self._laws = laws
        self._verdicts: list[Verdict] = []
        self._since = time.perf_counter()
        self._waiting = self._console.is_terminal
        self._live = Live(
            get_renderable=self._table, console=self._console, refresh_per_second=4, transient=True
        )

    def __enter__(self) -> "Board":
        self._console.print(Text(self._subject, "bold cyan"))
        if self._waiting:
            self._live.start()
        return self

    def __exit__(self, *raised: Any) -> None:
        if self._waiting:
            self._waiting = False
            self._live.stop()
            self._console.print(self._table())

    def tell(self, verdict: Verdict) -> None:
        """Adds a verdict."""
        self._verdicts.append(verdict)
        self._since = time.perf_counter()
        if not self._waiting:
            self._console.print(self._table([verdict]))

    def _table(self, verdicts: list[Verdict] | None = None) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=1)
        table.add_column(width=max(map(len, self._laws)))
        table.add_column()
        for verdict in self._verdicts if verdicts is None else verdicts:
            style = _STYLES[verdict.status]
            table.add_row(
                Text(SIGNS[verdict.status], style), Text(verdict.law.name, style), Text(note(verdict), "dim")
            )
        if self._waiting and len(self._verdicts) < len(self._laws):
            waited = time.perf_counter() - self._since
            table.add_row("…", self._laws[len(self._verdicts)], Text(f"{waited:.0f} s", "dim"))
        return table

    def explain(self, result: ScoreBoard, next_command: str) -> None:
        """Prints what there is to say about broken laws, the sum, and the next command."""
        for name, text in explanations(result):
            self._console.print()
            self._console.print(Text(f"{name} is broken", "bold red"))
            for title, lines in text:
                self._console.print(Text(title, "bold"))
                for line in lines:
                    # To be pasted or compared column by column: never wrapped, never filled up with spaces.
                    self._console.print(Text(f"  {line}".rstrip()), soft_wrap=True)
        self._console.print()
        self._console.print(Text(f"{summary(result)}; seed {result.seed}"), soft_wrap=True)
        self._console.print(Text(f"tried with: {'; '.join(result.kinds)}", "dim"))
        self._console.print(Text(f"next: {next_command}"), soft_wrap=True)
