"""The figures of a report, each drawn twice: for the page, and to stand alone. Needs Matplotlib (extra `report`).

What is drawn stands here; how it looks, on the page and alone, in `figure_style.py`.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Sequence
from io import StringIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from griffin_eqx.ablation import words
from griffin_eqx.ablation.analysis import Analysis, Row, TaskResult, by_position
from griffin_eqx.ablation.figure_style import (
    LIGHT,
    MARKERS,
    MUTED,
    for_file,
    for_page,
    settings,
    variant_color,
)
from griffin_eqx.ablation.results import RunRecord
from griffin_eqx.units import binary, si

_SIZE = (4.3, 3.0)


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawing and its words.

    Attributes:
      name: Of its file, without the ending.
      title: What it shows.
      caption: How to read it.
      alt: What is to be seen, for who cannot see it.
      variants: Places in the legend: indices of the analysis' variants; none where the drawing names them itself.
      svg: The drawing.
    """

    name: str
    title: str
    caption: str
    alt: str
    variants: tuple[int, ...]
    svg: str


def draw(analysis: Analysis, task: TaskResult, *, alone: bool = False) -> list[Figure]:
    """Draws all figures of a task that there are numbers for.

    Args:
      analysis: The numbers.
      task: Which task.
      alone: Whether for files of their own, and not for the page.
    """
    pen = _Pen(analysis, task, alone)
    kinds: tuple[Callable[[_Pen], Figure | None], ...] = (
        _answer,
        _curves,
        _lengths,
        _positions,
        *(_pareto(*cost) for cost in _COSTS),
        _sensitivity,
    )
    with matplotlib.rc_context(settings(alone)):
        return [figure for kind in kinds if (figure := kind(pen)) is not None]


class _Pen:
    """What all figures of a task share."""

    def __init__(self, analysis: Analysis, task: TaskResult, alone: bool):
        self.analysis = analysis
        self.task = task
        self.alone = alone
        self.scale = words.scale_of(task)
        self.drawn = 0

    def index(self, row: Row) -> int:
        return self.analysis.variants.index(row.variant)

    def style(self, row: Row, **more: Any) -> dict[str, Any]:
        """Colour, marker and group of a variant's line; its name where the legend is drawn."""
        index = self.index(row)
        again = index // len(LIGHT)
        self.drawn += 1
        return {
            "color": variant_color(index, self.alone),
            "marker": MARKERS[index % len(MARKERS)],
            "linestyle": ("-", (0, (4, 1.5)))[again % 2],
            "linewidth": 1.6,
            "markersize": 4.5,
            "markeredgewidth": 0,
            "gid": f"variant-{index}-{self.drawn}",
            **more,
        }

    def band(
        self, axes: Axes, row: Row, x: Sequence[float | int], low: Sequence[float], high: Sequence[float]
    ) -> None:
        """Shades what lies between."""
        self.drawn += 1
        axes.fill_between(
            x, low, high, color=variant_color(self.index(row), self.alone), alpha=0.16, linewidth=0,
            gid=f"variant-{self.index(row)}-{self.drawn}",
        )  # fmt: skip

    def canvas(self, size: tuple[float, float] = _SIZE) -> tuple[Canvas, Axes]:
        canvas = Canvas(figsize=size, layout="constrained")
        axes = canvas.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        return canvas, axes

    def quality(self, axes: Axes, which: str = "test") -> None:
        """Labels the y axis with the metric."""
        scale = self.scale
        axes.set_ylabel(f"{which} {_with_unit(scale.name, scale.unit)} {_better(scale.higher_is_better)}")
        if scale.unit == "%":
            low, high = axes.get_ylim()
            axes.set_ylim(max(low, -3.0), min(high, 103.0))

    def finish(self, canvas: Canvas, axes: Axes, rows: Sequence[Row], name: str, **told: str) -> Figure:
        """Writes the drawing."""
        if self.alone:
            axes.set_title(f"{self.task.name}: {told['title']}", loc="left", fontsize=9.5, fontweight="bold")
            if rows:
                _legend(canvas, axes, [(_short(row.variant, 28), self.style(row)) for row in rows])
        name = f"{_slug(self.analysis, self.task)}-{name}"
        title = f"{self.task.name}: {told['title']}"
        file = StringIO()
        canvas.savefig(
            file, format="svg", transparent=not self.alone, metadata={"Date": None, "Title": title}
        )
        svg = for_file(file.getvalue()) if self.alone else for_page(file.getvalue(), name, told["alt"])
        names = tuple(self.index(row) for row in rows)
        return Figure(name, told["title"], told["caption"], told["alt"], names, svg)


def _answer(pen: _Pen) -> Figure | None:
    rows = pen.task.ranked
    if not rows:
        return None
    scale = pen.scale
    canvas, axes = pen.canvas((_SIZE[0], 0.75 + (0.36 if len(rows) < 6 else 0.27) * len(rows)))
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    base = next((row for row in rows if row.variant == pen.task.baseline), None)
    if base and base.score:
        axes.axvline(base.score.mean * scale.factor, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
    for place, row in enumerate(rows):
        assert row.score is not None
        values = [value * scale.factor for value in row.score.values.values()]
        style = pen.style(row, linestyle="none")
        axes.plot(values, [place + 0.22] * len(values), **{**style, "marker": "|", "markeredgewidth": 0.9})
        if row.score.half_width is not None:
            ends = [scale.factor * end for end in (row.score.low or 0.0, row.score.high or 0.0)]
            axes.plot(ends, [place, place], **pen.style(row, marker="", linestyle="-", linewidth=2.2))
        axes.plot([row.score.mean * scale.factor], [place], **pen.style(row, linestyle="none", markersize=7))
    axes.set_yticks(range(len(rows)), [_short(row.variant) for row in rows])
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"test {_with_unit(scale.name, scale.unit)} {_better(scale.higher_is_better)}")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    ranking = "; ".join(f"{row.rank}. {row.variant} {scale.estimate(row.score)}" for row in rows)
    return pen.finish(
        canvas, axes, (), "answer",
        title=f"Test {scale.name}, ranked",
        caption="Mean and 95 % interval over seeds; small strokes are single seeds; dashed is the baseline's mean.",
        alt=f"Test {scale.name} in {scale.unit} with 95 % intervals: {ranking}.",
    )  # fmt: skip


def _curves(pen: _Pen) -> Figure | None:
    metric = pen.task.metric
    every = [row for row in pen.task.rows if row.runs]

    def length(kind: str, what: str) -> int:
        return max((len(_points(run, kind, what)) for row in every for run in row.runs), default=0)

    # Short runs are evaluated at their end alone: then what training saw makes the curve.
    kinds = [("validation", metric), ("validation", "loss"), ("train", "loss")]
    kind, what = next(
        (kind for kind in kinds if length(*kind) >= 3), max(kinds, key=lambda kind: length(*kind))
    )
    factor = pen.scale.factor if what == metric else 1.0
    canvas, axes = pen.canvas()
    drawn = []
    for row in every:
        data = row.cell.config.data
        runs = row.finished or row.runs
        curves = [curve for run in runs if (curve := _points(run, kind, what))]
        common = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
        if not common:
            continue
        common = _thinned(common)
        tokens = [step * data.batch_size * data.seq_len for step in common]
        columns = [[curve[step] * factor for curve in curves] for step in common]
        means = [sum(column) / len(column) for column in columns]
        if len(curves) > 1:
            pen.band(axes, row, tokens, list(map(min, columns)), list(map(max, columns)))
        axes.plot(tokens, means, **pen.style(row, markevery=max(1, len(tokens) // 8)))
        drawn.append((row, means[-1]))
    if not drawn:
        return None
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _thousands(x)))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("tokens trained on")
    named = pen.scale.name if what == metric else "loss"
    if what == metric and kind == "validation":
        pen.quality(axes, "validation")
    else:
        axes.set_ylabel(f"{'training' if kind == 'train' else kind} loss (nats) {_better(False)}")
    ends = ", ".join(f"{row.variant} {value:.4g}" for row, value in drawn)
    return pen.finish(
        canvas, axes, [row for row, _ in drawn], "curves",
        title=f"Learning curves: {'training' if kind == 'train' else 'validation'} {named}",
        caption="Mean over the seeds at the chosen learning rate; bands run from the lowest to the highest seed.",
        alt=f"{named} against tokens trained on. At the end: {ends}.",
    )  # fmt: skip


def _lengths(pen: _Pen) -> Figure | None:
    names = pen.task.set_names
    rows = [row for row in pen.task.ranked if len(row.sets) > 1]
    if len(names) < 2 or not rows:
        return None
    length = {score.name: score.seq_len for row in rows for score in row.sets}
    by_length = len(set(length.values())) == len(length)
    place = {name: float(length[name]) if by_length else float(names.index(name)) for name in length}
    scale = pen.scale
    canvas, axes = pen.canvas()
    ends = []
    for row in rows:
        scores = sorted(
            ((place[score.name], score.metric) for score in row.sets if score.metric),
            key=lambda pair: pair[0],
        )
        if not scores:
            continue
        x = [at for at, _ in scores]
        if all(found.half_width is not None for _, found in scores):
            low = [scale.factor * (found.low or 0.0) for _, found in scores]
            high = [scale.factor * (found.high or 0.0) for _, found in scores]
            pen.band(axes, row, x, low, high)
        axes.plot(x, [scale.factor * found.mean for _, found in scores], **pen.style(row))
        ends.append(f"{row.variant} {scale.estimate(scores[-1][1])}")
    if by_length:
        axes.set_xscale("log", base=2)
        axes.set_xlabel("tokens a row (each step doubles)")
        _mark_training_length(axes, pen.task.train_length)
        _ticks(axes, sorted(place.values()), [f"{int(at)}" for at in sorted(place.values())])
    else:
        _ticks(axes, [place[name] for name in names], [_short(name, 14) for name in names])
        axes.set_xlabel("evaluation set")
    pen.quality(axes)
    return pen.finish(
        canvas, axes, rows, "lengths",
        title=f"Test {scale.name} against length" if by_length else f"Test {scale.name} on every set",
        caption="Mean and 95 % interval over seeds; the dotted line is the length of training.",
        alt=f"Test {scale.name} in {scale.unit} by length. At the longest: {', '.join(ends)}.",
    )  # fmt: skip


def _positions(pen: _Pen) -> Figure | None:
    longest = pen.task.set_names[-1:]
    canvas, axes = pen.canvas()
    drawn, ends = [], []
    for row in pen.task.ranked:
        found = by_position(row.finished, longest[0]) if longest else {}
        if len(found) < 3:
            continue
        x = [start + 1 for start in found]
        if any(value.n > 1 for value in found.values()):
            low, high = (
                [extreme(value.values.values()) for value in found.values()] for extreme in (min, max)
            )
            pen.band(axes, row, x, low, high)
        axes.plot(x, [value.mean for value in found.values()], **pen.style(row))
        drawn.append(row)
        ends.append(f"{row.variant} {list(found.values())[-1].mean:.4g}")
    if not drawn:
        return None
    axes.set_xscale("log", base=2)
    _mark_training_length(axes, pen.task.train_length)
    axes.xaxis.set_major_locator(LogLocator(base=4, numticks=9))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.set_xlabel("position in the row (tokens, in buckets that double)")
    axes.set_ylabel(f"test loss (nats a target) {_better(False)}")
    return pen.finish(
        canvas, axes, drawn, "positions",
        title=f"Test loss by position, {_short(longest[0], 30)}",
        caption="Buckets of positions, drawn where they begin; mean over seeds, bands from the lowest to the "
        "highest seed; the dotted line is the length of training.",
        alt=f"Loss in nats by position in the row. In the last bucket: {', '.join(ends)}.",
    )  # fmt: skip


_Cost = Callable[[Row], float | int | None]

_COSTS: tuple[tuple[str, str, str, _Cost, bool], ...] = (
    (
        "parameters",
        "parameters",
        "parameters without embedding",
        lambda row: row.cell.sizes.parameters_non_embedding,
        False,
    ),
    (
        "cache",
        "cache",
        "cache of one sequence of {length} tokens",
        lambda row: row.cell.sizes.cache_bytes,
        False,
    ),
    (
        "speed",
        "training speed",
        "training tokens a second, as the runs ran",
        lambda row: row.tokens_per_second,
        True,
    ),
)


def _pareto(
    name: str, what: str, label: str, cost: _Cost, more_is_better: bool
) -> Callable[[_Pen], Figure | None]:
    def figure(pen: _Pen) -> Figure | None:
        rows = [(row, value, row.score) for row in pen.task.ranked if (value := cost(row)) and row.score]
        if len(rows) < 2:
            return None
        scale = pen.scale
        canvas, axes = pen.canvas()
        axes.grid(visible=True, axis="x")
        sign = 1 if scale.higher_is_better else -1
        front = list(
            _front([(value if more_is_better else -value, sign * score.mean) for _, value, score in rows])
        )
        corners = sorted((rows[i][1], rows[i][2].mean * scale.factor) for i in front)
        if len(corners) > 1:
            axes.plot(
                *zip(*corners, strict=True), color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)), zorder=1
            )
        for row, value, score in rows:
            half = None if score.half_width is None else score.half_width * scale.factor
            if half is not None:
                mean = score.mean * scale.factor
                axes.plot([value] * 2, [mean - half, mean + half], **pen.style(row, marker="", linestyle="-"))
            axes.plot(
                [value], [score.mean * scale.factor], **pen.style(row, linestyle="none", markersize=7.5)
            )
        values = [value for _, value, _ in rows]
        if max(values) > 4 * min(values):
            base = 2 if name == "cache" else 10
            axes.set_xscale("log", base=base)
            axes.xaxis.set_major_locator(
                LogLocator(base, subs=(1.0,) if base == 2 else (1.0, 2.0, 5.0), numticks=6)
            )
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.margins(x=0.12)
        written = binary if name == "cache" else si
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda x, _: binary(x) if name == "cache" else _thousands(x))
        )
        length = rows[0][0].cell.sizes.cache_length
        axes.set_xlabel(f"{label.format(length=length)} {_better(more_is_better)}")
        pen.quality(axes)
        points = "; ".join(
            f"{row.variant} {written(value)}, {scale.estimate(score)}" for row, value, score in rows
        )
        return pen.finish(
            canvas, axes, [row for row, *_ in rows], f"pareto-{name}",
            title=f"Test {scale.name} against {what}",
            caption="Mean and 95 % interval; the dashed line joins the variants that no other one beats in both.",
            alt=f"Test {scale.name} in {scale.unit} against {what}: {points}.",
        )  # fmt: skip

    return figure


def _sensitivity(pen: _Pen) -> Figure | None:
    rows = [row for row in pen.task.rows if len(row.trials) > 1 and any(t.validation for t in row.trials)]
    if not rows:
        return None
    scale = pen.scale
    canvas, axes = pen.canvas()
    told = []
    for row in rows:
        tried = [  # a rate without a number breaks the line
            (trial.learning_rate, trial.validation.mean * scale.factor if trial.validation else math.nan)
            for trial in row.trials
        ]
        axes.plot(*zip(*tried, strict=True), **pen.style(row))
        chosen = [point for point in tried if point[0] == row.learning_rate]
        if chosen:
            ring = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgewidth": 1.1}
            style = pen.style(row, linestyle="none", **ring)
            axes.plot(*zip(*chosen, strict=True), **style, markeredgecolor=style["color"])
        told.append(f"{row.variant} {words.rate(row.learning_rate) or 'none'}")
    axes.set_xscale("log")
    rates = sorted({trial.learning_rate for row in rows for trial in row.trials})
    foot = axes.get_ylim()[0]
    for row in rows:
        if lost := [trial.learning_rate for trial in row.trials if trial.failed]:
            hollow = {"linestyle": "none", "markerfacecolor": "none", "markeredgewidth": 1.1, "markersize": 6}
            axes.plot(lost, [foot] * len(lost), **pen.style(row, **hollow), clip_on=False)
    axes.set_ylim(bottom=foot)
    axes.set_xlim(rates[0] / 1.3, rates[-1] * 1.3)
    _ticks(axes, rates, [f"{rate:g}" for rate in rates])
    axes.set_xlabel("peak learning rate")
    pen.quality(axes, "validation")
    first = pen.analysis.results.design.plan.tuning == "first"
    return pen.finish(
        canvas, axes, rows, "learning-rates",
        title="Sensitivity to the learning rate",
        caption=f"{'Of the first seed' if first else 'Mean over seeds'}; a ring is what was chosen, a hollow mark "
        "at the foot a run that failed.",
        alt=f"Validation {scale.name} against learning rate. Chosen: {', '.join(told)}.",
    )  # fmt: skip


def _points(run: RunRecord, kind: str, what: str) -> dict[int, float]:
    """The values of a curve by step, those that are finite."""
    points = ((point.step, getattr(point, what)) for point in run.curve if point.kind == kind)
    return {step: value for step, value in points if value is not None and math.isfinite(value)}


def _thinned(steps: list[int], most: int = 150) -> list[int]:
    """At most so many of them, the last one included."""
    stride = math.ceil(len(steps) / most)
    return steps[::-1][::stride][::-1]


def _front(points: Sequence[tuple[float | int, float]]) -> Iterator[int]:
    """Which points no other one beats, where more is better in both."""
    for index, (x, y) in enumerate(points):
        if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points):
            yield index


def _mark_training_length(axes: Axes, length: int) -> None:
    axes.axvline(length, color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)), zorder=0)


def _ticks(axes: Axes, places: Sequence[float | int], labels: Sequence[str]) -> None:
    """Sets the ticks of the x axis; some are left out where there are many."""
    stride = math.ceil(len(places) / 8)
    axes.xaxis.set_major_locator(FixedLocator(list(places)[::stride]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels(list(labels)[::stride])


def _legend(canvas: Canvas, axes: Axes, entries: list[tuple[str, dict[str, Any]]]) -> None:
    lines = [
        axes.plot([], [], label=label, **{**style, "gid": None, "linestyle": "-", "markevery": None})[0]
        for label, style in entries
    ]
    columns = min(len(entries), 2 if max(len(label) for label, _ in entries) > 14 else 4)
    canvas.set_figheight(canvas.get_figheight() + 0.19 * math.ceil(len(entries) / columns))
    canvas.legend(handles=lines, loc="outside lower left", ncols=columns, frameon=False, fontsize=8)


def _with_unit(name: str, unit: str) -> str:
    return name if name.startswith("bits") else f"{name} ({unit})"


def _better(higher: bool) -> str:
    return "\N{UPWARDS ARROW} better" if higher else "\N{DOWNWARDS ARROW} better"


def _thousands(number: float | int) -> str:
    """Without rounding neighbouring ticks into one."""
    return (
        f"{number / 1e6:.10g} M"
        if number >= 1e6
        else f"{number / 1e3:.10g} k"
        if number >= 1e3
        else f"{number:g}"
    )


def _short(name: str, most: int = 22) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def _slug(analysis: Analysis, task: TaskResult) -> str:
    """The task's name as part of a file's; a number tells apart those that become the same."""

    def plain(name: str) -> str:
        return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "task"

    names = [plain(other.name) for other in analysis.tasks]
    own, place = plain(task.name), analysis.tasks.index(task)
    return own if names.count(own) == 1 else f"{own}-{place + 1}"
