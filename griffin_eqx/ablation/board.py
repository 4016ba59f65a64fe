"""What a user sees of an ablation while it runs: one live table in a terminal, plain lines elsewhere."""

import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live as LiveScreen
from rich.table import Table
from rich.text import Text

from griffin_eqx.ablation import schedule
from griffin_eqx.ablation.campaign import Campaign, Live
from griffin_eqx.ablation.design import Run
from griffin_eqx.ablation.messages import Crashed, Event
from griffin_eqx.ablation.schedule import Broken, Done
from griffin_eqx.ablation.selection import metric_of
from griffin_eqx.task import HIGHER_IS_BETTER, Metric
from griffin_eqx.training.progress import duration

_LIVE_SECONDS, _PLAIN_SECONDS = 0.25, 30.0
_PLAIN_LINES = 8


class Board:
    """Prints to standard output; nothing when `quiet`. Colours as rich decides: none where `NO_COLOR` is set.

    Args:
      quiet: Whether to be silent.
    """

    def __init__(self, *, quiet: bool = False, console: Console | None = None):
        self.console = console or Console(highlight=False, quiet=quiet)
        self._screen = LiveScreen(console=self.console, auto_refresh=False, transient=True)
        self._next = 0.0
        self._campaign: Campaign | None = None

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def close(self) -> None:
        """Takes the table off the screen; lines stay."""
        self._screen.stop()

    def say(self, text: str, style: str = "") -> None:
        """Prints a line that stays."""
        self.console.print(Text(text, style=style), soft_wrap=True)

    def watch(self, campaign: Campaign) -> None:
        """Shows a campaign from now on."""
        self._campaign = campaign
        if self.console.is_terminal:
            self._screen.start()

    def heard(self, run: Run | None, event: Event | None) -> None:
        """Shows what has happened to a run; with None, that time has passed."""
        campaign = self._campaign
        assert campaign is not None
        if run is not None and run.path in campaign.ends:
            self._ended(campaign, run)
        elif run is not None and isinstance(event, Crashed):
            self.say(f"{_name(run)}: {event.reason}; tried again", style="yellow")
        if time.monotonic() < self._next:
            return
        if self.console.is_terminal:
            self._screen.update(self._table(campaign), refresh=True)
            self._next = time.monotonic() + _LIVE_SECONDS
        elif campaign.live:
            if self._next:
                for live in list(campaign.live.values())[:_PLAIN_LINES]:
                    self.say(f"  {_name(live.run)}: {_progress(live)}")
                if (more := len(campaign.live) - _PLAIN_LINES) > 0:
                    self.say(f"  and {more} more")
                self.say(f"  {_summary(campaign)}")
            self._next = time.monotonic() + _PLAIN_SECONDS

    def _ended(self, campaign: Campaign, run: Run) -> None:
        end, (done, total) = campaign.ends[run.path], campaign.counts
        if isinstance(end, Broken):
            said = Text(f"{end.kind}: {end.reason.splitlines()[0] if end.reason else ''}", style="red")
        else:
            metric = campaign.cell_of(run).metric
            said = Text(f"{_value(metric_of(end.validation, metric), metric)} on validation")
        left = campaign.remaining()
        more = f", {left} left" if left and done < total else ""
        self.console.print(Text(f"{done}/{total}{more}  {_name(run)}: ").append_text(said), soft_wrap=True)

    def _table(self, campaign: Campaign) -> Group:
        design = campaign.design
        tasks = len(design.plan.tasks) > 1
        table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
        for column in ("variant", *(["task"] if tasks else []), "runs", "best"):
            table.add_column(column, justify="right" if column in ("runs", "best") else "left", no_wrap=True)
        table.add_column("now", no_wrap=True, ratio=1)
        outstanding = schedule.outstanding(design, campaign.ends)
        room = max(4, self.console.height - 4)
        rows = range(len(design.cells))
        if len(rows) > room:  # then those where something happens; the last line counts all
            busy = {live.cell for live in campaign.live.values()}
            rows = [row for row in rows if row in busy][:room]
        for row in rows:
            cell = design.cells[row]
            runs = schedule.wanted_of(design, cell, campaign.ends)
            ends = [campaign.ends[run.path] for run in runs if run.path in campaign.ends]
            live = [live for live in campaign.live.values() if live.cell == row]
            idle = "" if live else "dim"
            counts = Text(f"{len(ends)}/{len(ends) + outstanding[row]}")
            if broken := sum(isinstance(end, Broken) for end in ends):
                counts.append(f" {broken} failed", style="red")
            now = "; ".join(f"{_short(one.run)}: {_progress(one)}" for one in live)
            table.add_row(
                Text(cell.variant, style=idle or "bold"),
                *([Text(cell.task, style=idle)] if tasks else []),
                counts,
                Text(_best(cell.metric, ends)),
                Text(now or ("waits" if outstanding[row] else ""), style=idle),
            )
        return Group(table, Text(_summary(campaign), style="dim"))


def _best(metric: Metric, ends: list[Done | Broken]) -> str:
    scores = [metric_of(end.validation, metric) for end in ends if isinstance(end, Done)]
    known = [score for score in scores if score is not None]
    return _value((max if HIGHER_IS_BETTER[metric] else min)(known), metric) if known else ""


def _progress(live: Live) -> str:
    if live.first_step is None:
        return f"starts, compiles, {time.monotonic() - live.since:.0f} s"
    loss = "" if live.loss is None else f", loss {live.loss:.3f}"
    if live.step == live.run.config.train.steps:
        return "last evaluations"
    return f"step {live.step:,}/{live.run.config.train.steps:,}{loss}"


def _summary(campaign: Campaign) -> str:
    done, total = campaign.counts
    elapsed = duration(time.monotonic() - campaign.began)
    left = campaign.remaining()
    parts = [f"{done} of {total} runs", elapsed]
    if campaign.compile_seconds:
        parts.append(f"{campaign.compile_seconds:.0f} s of compiling")
    parts.append(
        "saving, then stopping"
        if campaign.stopping
        else f"{left} left"
        if left
        else "measuring how long it takes"
    )
    return ", ".join(parts)


def _name(run: Run) -> str:
    return f"{run.variant} on {run.task}, {_short(run)}"


def _short(run: Run) -> str:
    return f"lr {run.learning_rate:g} seed {run.seed}"


def _value(score: float | None, metric: Metric) -> str:
    if score is None:
        return "not finite"
    if metric in ("accuracy", "exact"):
        return f"{100 * score:.1f} %{' of rows' if metric == 'exact' else ''}"
    return f"{score:.4f} {'bits/byte' if metric == 'bits_per_byte' else 'nats'}"
