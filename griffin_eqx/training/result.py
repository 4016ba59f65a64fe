"""What a run came to, and how it is said."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from griffin_eqx.task import Metric
from griffin_eqx.training import run_directory as layout


class Result(NamedTuple):
    """What a run came to.

    Attributes:
      run_dir: Its directory.
      step: Batches seen.
      finished: Whether it reached the last step; otherwise the same call goes on with it.
      metric: What its task is judged by.
      best: Its value in the best evaluation on the validation split; None before the first.
      last: Its value in the last evaluation; None where it is not finite, too.
      tokens_per_second: Training speed, evaluations and saves left out; None when nothing was trained.
      compile_seconds: Time to compile the step; 0 when nothing was trained.
    """

    run_dir: Path
    step: int
    finished: bool
    metric: Metric
    best: float | None
    last: float | None
    tokens_per_second: float | None
    compile_seconds: float


def tell(
    say: Callable[[str], None], result: Result, *, steps: int, best_step: int | None, sample: Path | None
) -> None:
    """Tells what came out and what to type next.

    Args:
      say: Told each line.
      result: The result.
      steps: Steps of the whole run.
      best_step: The step of the best evaluation.
      sample: The file of text, which may not be there; None where the task is no text.
    """
    if not result.finished:
        say(f"stopped at step {result.step:,} of {steps:,}; to go on:")
        say(f"  griffin train {result.run_dir / layout.CONFIG} --run-dir {result.run_dir}")
        return
    if sample is not None and sample.exists():
        say(f"\n{_printable(sample.read_text(encoding='utf-8'))}\n")
    last, best = result.last, result.best
    if last is not None and best is not None:
        say(f"validation {said(result.metric, last)}, best {best:.4f} at step {best_step:,}")
    if result.tokens_per_second is not None:
        speed = f"{result.tokens_per_second:,.0f} tokens a second"
        say(f"{speed}, {result.compile_seconds:.1f} s of compiling")
    if sample is not None:
        say(f"next: griffin sample {result.run_dir}")


_WORDS: dict[Metric, str] = {
    "accuracy": "of the targets right",
    "exact": "of the rows right",
    "bits_per_byte": "bits/byte",
    "loss": "nats a target",
}


def said(metric: Metric, value: float | None) -> str:
    """A value of a metric in words.

    >>> said("bits_per_byte", 1.5)
    '1.5000 bits/byte'
    """
    return f"{number(value)} {_WORDS[metric]}"


def number(value: float | None) -> str:
    """A value of a metric; None was not finite."""
    return "not finite" if value is None else f"{value:.4f}"


def _printable(text: str) -> str:
    """Text without what would steer a terminal: a model of bytes writes anything."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
