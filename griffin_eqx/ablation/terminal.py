"""The answer of an ablation on a terminal. Imports no JAX."""

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from griffin_eqx.ablation import words
from griffin_eqx.ablation.analysis import Analysis
from griffin_eqx.ablation.report import summary
from griffin_eqx.ablation.tables import answers, not_counted

_SHOWN = {1: "variant", 2: None, 3: None, 7: "params", 9: "cache", 10: "tokens/s"}
"""Which columns of the answer, and their titles where shorter ones do: a terminal has no room for all."""


def show(analysis: Analysis, console: Console | None = None) -> None:
    """Prints the ranked table of every task, and how many runs are not in it."""
    console = console or Console(highlight=False)
    console.print(Text(analysis.title, "bold"))
    console.print(Text(summary(analysis), "dim"))
    for task in analysis.tasks:
        table = answers(task)
        console.print()
        console.print(Text(task.name, "bold cyan"))
        grid = RichTable(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
        for place, short in _SHOWN.items():
            number = table.numeric[place]
            grid.add_column(
                Text(short or table.titles[place]), justify="right" if number else "left", no_wrap=number
            )
        for cells, row in zip(table.rows, task.rows, strict=True):
            style = "bold" if row.rank == 1 or row.tied else ""
            grid.add_row(*(Text(cells[place].text) for place in _SHOWN), style=style)
        console.print(grid)
        for sentence in words.answer(task):
            console.print(Text(sentence))
    lost = not_counted(analysis.results)
    if lost:
        console.print()
        console.print(Text(f"not counted: {len(lost.rows)} runs", "bold"))
        for path, state, _, reason in lost.rows[:8]:
            first = reason.text.splitlines()[0] if reason.text else ""
            console.print(Text(f"  {path.text}  {state.text}  {first}"))
        if len(lost.rows) > 8:
            console.print(Text(f"  and {len(lost.rows) - 8} more, in the report"))
