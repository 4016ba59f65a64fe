"""Numbers and findings of an ablation in words: the same in page, Markdown and terminal. Imports no JAX."""

import dataclasses
import math

from griffin_eqx.ablation.analysis import Null, Row, TaskResult
from griffin_eqx.ablation.statistics import Estimate
from griffin_eqx.task import HIGHER_IS_BETTER, Metric

MINUS = "\N{MINUS SIGN}"

_NAMES: dict[Metric, tuple[str, float, str, str]] = {
    "accuracy": ("accuracy", 100.0, "%", "points"),
    "exact": ("rows exactly right", 100.0, "%", "points"),
    "bits_per_byte": ("bits per byte", 1.0, "bits/byte", "bits/byte"),
    "loss": ("loss", 1.0, "nats", "nats"),
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """How a metric is written.

    Attributes:
      name: What it is called.
      factor: What a number is multiplied by.
      unit: The unit then.
      difference_unit: That of a difference.
      decimals: Digits behind the point.
      higher_is_better: Which way is better.
    """

    name: str
    factor: float
    unit: str
    difference_unit: str
    decimals: int
    higher_is_better: bool

    @property
    def better(self) -> str:
        """Which way is better, in words."""
        return "higher is better" if self.higher_is_better else "lower is better"

    def value(self, number: float) -> str:
        """A number without its unit."""
        return f"{number * self.factor:.{self.decimals}f}".replace("-", MINUS)

    def estimate(self, found: Estimate | None) -> str:
        """Mean and half-width, without the unit; the mean alone where there is one seed."""
        if found is None:
            return "none"
        return self.value(found.mean) + self._half(found)

    def difference(self, found: Estimate | None) -> str:
        """The same with a sign."""
        if found is None:
            return ""
        text = self.value(found.mean)
        sign = "" if text.startswith(MINUS) else "+"
        if text.strip(MINUS + "0.") == "":
            text, sign = text.lstrip(MINUS), ""
        return sign + text + self._half(found)

    def _half(self, found: Estimate) -> str:
        if found.half_width is None:
            return ""
        text = self.value(found.half_width)
        least = self.value(10.0**-self.decimals / self.factor)
        return f" ± <{least}" if found.half_width > 0 and not text.strip("0.") else f" ± {text}"


def scale_of(task: TaskResult) -> Scale:
    """How the task's metric is written: with two digits of the narrowest interval, within reason."""
    name, factor, unit, difference_unit = _NAMES[task.metric]
    few, many = (1, 2) if factor == 100.0 else (3, 4)
    halves = [row.score.half_width * factor for row in task.rows if row.score and row.score.half_width]
    decimals = max(few, min(many, 1 - math.floor(math.log10(min(halves))))) if halves else few
    return Scale(name, factor, unit, difference_unit, decimals, HIGHER_IS_BETTER[task.metric])


def p_value(p: float | None) -> str:
    """A p-value.

    >>> p_value(0.034), p_value(0.0001), p_value(None)
    ('0.034', '< 0.001', '')
    """
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def rate(learning_rate: float | None) -> str:
    """A learning rate."""
    return "" if learning_rate is None else f"{learning_rate:g}"


def answer(task: TaskResult) -> list[str]:
    """What the task says, in sentences; what it cannot say as well."""
    scale = scale_of(task)
    ranked = task.ranked
    if not any(run.status == "finished" for row in task.rows for run in row.runs):
        return ["No run has finished yet at a chosen learning rate.", *_without_a_number(task)]
    if not ranked:
        return ["No variant has a number: nothing that finished is finite.", *_without_a_number(task)]
    best = ranked[0]
    first = f"{best.variant} is first with {scale.estimate(best.score)} {scale.unit}"
    if len(ranked) == 1:
        first = f"{best.variant}: {scale.estimate(best.score)} {scale.unit}"
    tied = [row.variant for row in ranked if row.tied]
    if tied:
        seeds = max(row.score.n for row in ranked if row.score)
        reason = "one seed" if seeds == 1 else f"{seeds} seeds"
        first += f"; {listed(tied)} cannot be told from it by {reason}"
    sentences = [f"{first}.", *_against_baseline(task, scale), *(_null(null, scale) for null in task.nulls)]
    counted = [row for row in ranked if row.lost]
    if counted:
        sentences.append(
            "Means of fewer seeds: " + "; ".join(f"{row.variant} ({lost(row)})" for row in counted) + "."
        )
    sentences += _without_a_number(task)
    if edges := [f"{row.variant} ({row.edge}, {rate(row.learning_rate)})" for row in task.rows if row.edge]:
        sentences.append(
            f"The best learning rate lies at the edge of those tried, and a better one may lie beyond: {listed(edges)}."
        )
    return sentences


def _against_baseline(task: TaskResult, scale: Scale) -> list[str]:
    compared = [row for row in task.rows if row.p_adjusted is not None]
    if not compared:
        return []
    differ = [
        f"{row.variant} by {scale.difference(row.difference)} {scale.difference_unit}"
        for row in compared
        if row.different
    ]
    if not differ:
        return [f"No difference from the baseline, {task.baseline}, is larger than chance explains."]
    if len(differ) > 4:
        return [f"{len(differ)} of {len(compared)} variants differ from the baseline, {task.baseline}."]
    return [f"Different from the baseline, {task.baseline}: {listed(differ)}."]


def _without_a_number(task: TaskResult) -> list[str]:
    without = [f"{row.variant} ({lost(row)})" for row in task.rows if row.rank is None]
    return [f"Without a number: {'; '.join(without)}."] if without else []


def _null(null: Null, scale: Scale) -> str:
    if not null.independent:
        return f"{null.first} and {null.second} are the same computation twice: they show only whether it repeats."
    told = f"{null.first} and {null.second} are the same model from independent initial weights"
    if null.difference is None:
        return f"{told}; they have no seed in common yet."
    return (
        f"{told}: {scale.difference(null.difference)} {scale.difference_unit} between them is chance alone, "
        "and the yardstick for every other difference here."
    )


def lost(row: Row) -> str:
    """Which seeds a row lacks, and why."""
    reasons: dict[str, list[int]] = {}
    for seed, reason in row.lost.items():
        reasons.setdefault(reason, []).append(seed)
    return ", ".join(
        f"seed{'s' * (len(seeds) > 1)} {listed([str(seed) for seed in seeds])} {reason}"
        for reason, seeds in reasons.items()
    )


def notes(row: Row, task: TaskResult) -> list[str]:
    """What marks a row of the table."""
    marks = []
    if row.rank == 1 and len(task.ranked) > 1:
        marks.append("best")
    if row.tied:
        marks.append("not distinguishable from the best")
    if row.variant == task.baseline:
        marks.append("baseline")
    if row.score and row.score.n == 1:
        marks.append("one seed: no interval")
    elif row.score and row.score.constant:
        marks.append("all seeds equal")
    if row.lost:
        marks.append(lost(row))
    if row.edge:
        marks.append(f"{row.edge} learning rate tried")
    return marks


def listed(words: list[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
