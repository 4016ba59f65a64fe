"""Which learning rate is a variant's own: the best on validation. Imports no JAX."""

import math
from collections.abc import Mapping, Sequence

from griffin_eqx.task import HIGHER_IS_BETTER, Metric
from griffin_eqx.training.outcome import SetOutcome


def metric_of(outcome: SetOutcome, metric: Metric) -> float | None:
    """The metric of an evaluation set; None where it is not finite."""
    value = getattr(outcome, metric)
    return value if value is not None and math.isfinite(value) else None


def best_learning_rate(
    validation: Mapping[float, Sequence[SetOutcome | None]], metric: Metric
) -> float | None:
    """Chooses by the mean over seeds of the metric, then of the loss (where all is solved), then the lowest rate.

    Args:
      validation: For each learning rate, the first validation set of each run that tried it; None for a run that
        failed. A rate without runs is not considered, and one with a failed run only where all have one.
      metric: What the task is judged by.

    Returns:
      The rate; None where no run has a finite metric.
    """
    scores = {rate: _score(runs, metric) for rate, runs in validation.items() if runs}
    if not any(score[1] for score in scores.values()):
        return None
    return max(scores, key=lambda rate: (scores[rate], -rate))


def _score(runs: Sequence[SetOutcome | None], metric: Metric) -> tuple[float, int, float, float]:
    """`(minus failed runs, finite runs, mean metric, minus mean loss)`: the more the better."""
    sign = 1 if HIGHER_IS_BETTER[metric] else -1
    pairs = [
        (sign * value, -run.loss if run.loss is not None else -math.inf)
        for run in runs
        if run is not None and (value := metric_of(run, metric)) is not None
    ]
    if not pairs:
        return (-math.inf, 0, -math.inf, -math.inf)
    values, losses = zip(*pairs, strict=True)
    failed = (len(runs) - len(pairs)) / len(runs)
    return (-failed, 1, sum(values) / len(values), sum(losses) / len(losses))
