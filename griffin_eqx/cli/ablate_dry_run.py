"""What an ablation would do, as a table: nothing is trained, and nothing written but measured speeds."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from griffin_eqx.ablation.ablate import place, timer_of
from griffin_eqx.ablation.design import Cell, Design, planned_runs
from griffin_eqx.ablation.folder import refuse_contradictions
from griffin_eqx.ablation.machine import usual
from griffin_eqx.ablation.matching import WORDS
from griffin_eqx.ablation.plan import Budget, Plan
from griffin_eqx.ablation.work_out import work_out
from griffin_eqx.cli.info import binary, si
from griffin_eqx.pattern import Pattern

EFFICIENCY = 0.35
"""What a training step makes of the machine's rate for a large product: 0.27 to 0.53 measured with small models
(width 64 and 256, 0.1 to 2.4 million parameters) on 2 cores; larger ones make more of it."""

UNCERTAINTY = 2.0
"""The estimate's range is this factor both ways."""

CELL_SECONDS = 15.0
"""Starting and compiling, once a variant and task."""


def show(
    plan: Plan,
    *,
    where: str | None = None,
    folder: Path | None = None,
    workers: int | None = None,
    threads: int | None = None,
    console: Console | None = None,
) -> Design:
    """Works a plan out and prints what it comes to.

    Raises:
      PlanError: If it asks for what cannot be.
      RunError: If runs in the folder have begun otherwise.
    """
    folder = folder or place(plan)
    design = work_out(plan, where=where, timer=timer_of(folder, workers, threads))
    refuse_contradictions(folder, design)
    console = console or Console(highlight=False)
    console.print(f"[bold]{escape(plan.title or plan.name or 'ablation')}[/]")
    if plan.question:
        console.print(escape(plan.question), style="dim")
    _show_variants(design, console)
    console.print(
        "params: non-embedding parameters; FLOPs: of training, a token; cache: of one sequence of "
        f"{design.cells[0].sizes.cache_length:,} tokens",
        style="dim",
    )
    total_seconds, total_runs = 0.0, 0
    rate = _flops_per_second()
    at_once, _ = usual(workers, threads)
    for task in plan.tasks:
        cells = [cell for cell in design.cells if cell.task == task]
        total_seconds += _show_task(design, cells, rate, at_once, console)
        total_runs += sum(planned_runs(design, cell) for cell in cells)
    seeds = ", ".join(map(str, design.seeds))
    console.print(f"\n{total_runs} runs; seeds {seeds}; {_told_rates(design)}")
    console.print(f"expected time: [bold]{_range(total_seconds)}[/]")
    console.print(f"  {_basis(design, rate)}", style="dim")
    console.print(f"results: {escape(str(folder))}", soft_wrap=True)
    return design


def _basis(design: Design, rate: float) -> str:
    """How the expected time was come by."""
    if all(_budget(design, cell).minutes is not None for cell in design.cells):
        return (
            f"The budget's minutes, give or take a factor of {UNCERTAINTY:g}: speeds were measured with nothing else "
            "running; starting, compiling and evaluations come on top."
        )
    return (
        f"Training FLOPs at {EFFICIENCY:.0%} of the {rate / 1e9:.0f} GFLOP/s that a large product reaches here now, "
        f"all cores together, give or take a factor of {UNCERTAINTY:g}; evaluations come on top."
    )


def _show_variants(design: Design, console: Console) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    table.add_column("variant", no_wrap=True)
    table.add_column("pattern")
    table.add_column("blocks from", style="dim")
    first = next(iter(design.plan.tasks))
    for cell in design.cells:
        if cell.task == first:
            name = f"{cell.variant} (baseline)" if cell.variant == design.baseline else cell.variant
            blocks = ", ".join(sorted(set(cell.blocks.values())))
            table.add_row(escape(name), f"[cyan]{escape(cell.config.model.pattern)}[/]", escape(blocks))
    console.print()
    console.print(table)


def _show_task(design: Design, cells: list[Cell], rate: float, workers: int, console: Console) -> float:
    """Prints a task's table; gives the seconds expected for it."""
    first = cells[0]
    title = f"{first.task}: {first.config.data.task}, judged by {first.metric.replace('_', ' ')}"
    rows, seq_len = first.config.data.batch_size, first.config.data.seq_len
    console.print(f"\n[bold]{escape(title)}[/]  [dim]{rows} rows of {seq_len} tokens a step[/]")
    sizes, runs = _table("width", "MLP", "LRU", "layers", "params", "FLOPs", "cache", "off"), _table(*_RUNS)
    total = 0.0
    notes = []
    for cell in cells:
        seconds = cell_seconds(design, cell, rate, workers)
        total += seconds
        sizes.add_row(*map(escape, _sizes_row(cell)))
        runs.add_row(*map(escape, _runs_row(design, cell, seconds)))
        if cell.matched is not None and cell.matched.nearest:
            notes.append(f"{cell.variant}: {cell.matched.nearest}")
    console.print(sizes)
    if match := design.plan.match:
        changed = "; sizes with * were changed for it" if any(map(_adjusted, cells)) else ""
        console.print(f"matched in {WORDS[match.by]}{changed}", style="dim")
    for note in notes:
        console.print(f"  {escape(note)}", style="yellow")
    console.print(runs)
    return total


_RUNS = ("steps", "tokens", "runs", "time of all")


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", show_edge=False)
    table.add_column("variant", overflow="fold", min_width=12)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _adjusted(cell: Cell) -> set[str]:
    """What matching changed."""
    return {change.adjust for change in cell.matched.changes} if cell.matched is not None else set()


def _sizes_row(cell: Cell) -> list[str]:
    model, sizes, adjusted = cell.config.model, cell.sizes, _adjusted(cell)

    def marked(value: int, name: str) -> str:
        return f"{value}*" if name in adjusted else str(value)

    return [
        cell.variant,
        marked(model.width, "width"),
        marked(model.resolved_mlp_width, "mlp_width"),
        marked(model.resolved_lru_width, "lru_width"),
        marked(len(Pattern.parse(model.pattern)), "depth"),
        si(sizes.parameters_non_embedding),
        si(sizes.training_flops_per_token),
        binary(sizes.cache_bytes),
        "" if cell.matched is None else _percent(cell.matched.mismatch),
    ]


def _percent(fraction: float) -> str:
    return f"{fraction:+.1%}" if abs(fraction) >= 5e-4 else "0.0%"


def _runs_row(design: Design, cell: Cell, seconds: float) -> list[str]:
    steps = cell.config.train.steps
    tokens = steps * cell.config.data.batch_size * cell.config.data.seq_len
    return [cell.variant, f"{steps:,}", si(tokens), str(planned_runs(design, cell)), _range(seconds)]


def cell_seconds(design: Design, cell: Cell, rate: float, workers: int) -> float:
    """Seconds that the machine needs for all runs of a cell, as far as can be known beforehand."""
    runs = planned_runs(design, cell)
    budget = _budget(design, cell)
    start = CELL_SECONDS / workers
    if budget.minutes is not None:
        return start + 60 * budget.minutes * runs / workers
    tokens = cell.config.train.steps * cell.config.data.batch_size * cell.config.data.seq_len
    return start + runs * tokens * cell.sizes.training_flops_per_token / (rate * EFFICIENCY)


def _budget(design: Design, cell: Cell) -> Budget:
    own = design.plan.tasks[cell.task].budget
    return design.plan.budget if own is None else own


def _flops_per_second() -> float:
    import numpy as np

    from griffin_eqx.benchmark.step import square_product

    return square_product(np.float32)()


def _told_rates(design: Design) -> str:
    grids = {cell.learning_rates for cell in design.cells}
    if all(len(grid) == 1 for grid in grids):
        return "one learning rate each"
    told = " or ".join(", ".join(f"{rate:g}" for rate in grid) for grid in sorted(grids))
    who = "the first seed tries all" if design.plan.tuning == "first" else "every seed tries all"
    return f"learning rates {told} ({who})"


def _range(seconds: float) -> str:
    low, high = seconds / UNCERTAINTY, seconds * UNCERTAINTY
    unit, size = ("h", 3600) if low >= 3600 else ("min", 60) if low >= 60 else ("s", 1)
    return (
        f"{low / size:.2g} to {high / size:.2g} {unit}"
        if high / size < 100
        else f"{low / size:.0f} to {high / size:.0f} {unit}"
    )
