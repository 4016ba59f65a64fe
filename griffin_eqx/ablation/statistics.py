"""What a few seeds tell: means with intervals, paired differences, and Holm's correction. Imports no JAX.

Seeds are few and their spread is not known, so intervals are Student's: mean +- t * s / sqrt(n), where t is the
quantile of n - 1 degrees of freedom. They hold for values that are normal over seeds, and say nothing about what
all seeds share: the data, the evaluation sets, the grid of learning rates, the machine.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95
"""Of every interval here."""


def student_interval(
    values: Float[np.ndarray, "*draws seeds"],
) -> tuple[Float[np.ndarray, "*draws"], Float[np.ndarray, "*draws"]]:
    """Gives mean and half-width of the 95 % interval of each row.

    Args:
      values: Independent values along the last axis, at least two.

    Raises:
      ValueError: With fewer than two, from which no spread can be told.

    >>> student_interval(np.array([1.0, 2.0, 3.0]))
    (array(2.), array(2.48413771))
    """
    seeds = values.shape[-1]
    if seeds < 2:
        raise ValueError(f"An interval needs at least two values, and values has shape {values.shape}.")
    standard_error = values.std(axis=-1, ddof=1) / np.sqrt(seeds)
    return np.asarray(values.mean(axis=-1)), np.asarray(_quantile(seeds) * standard_error)


def _quantile(seeds: int) -> float:
    """Of Student's t, two-sided."""
    return float(stdtrit(seeds - 1, (1 + CONFIDENCE) / 2))


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over seeds and how sure it is.

    Attributes:
      values: One finite value a seed, at least one.
    """

    values: Mapping[int, float]

    def __post_init__(self) -> None:
        if not self.values or not all(map(math.isfinite, self.values.values())):
            raise ValueError(f"An estimate needs finite values, and has {dict(self.values)}.")

    @functools.cached_property
    def _interval(self) -> tuple[float, float | None]:
        array = np.array(list(self.values.values()))
        if self.constant:
            return array[0].item(), (0.0 if self.n > 1 else None)
        mean, half = student_interval(array)
        return mean.item(), half.item()

    @property
    def n(self) -> int:
        """How many seeds."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Of the values."""
        return self._interval[0]

    @property
    def half_width(self) -> float | None:
        """Of the 95 % interval; None for one seed, and 0 where all seeds agree, which is no certainty."""
        return self._interval[1]

    @property
    def low(self) -> float | None:
        """Where the interval begins. It may lie outside of what the metric can be: it is not cut there."""
        return None if self.half_width is None else self.mean - self.half_width

    @property
    def high(self) -> float | None:
        """Where it ends."""
        return None if self.half_width is None else self.mean + self.half_width

    @property
    def constant(self) -> bool:
        """Whether all values are equal, one seed included: then nothing is known of their spread."""
        return len(set(self.values.values())) == 1

    @property
    def p_value(self) -> float | None:
        """Two-sided, of the hypothesis that the true mean is 0; None for one seed.

        Where all seeds agree it is the limit of a vanishing spread: 1 for zeros, else 0.
        """
        if self.half_width is None:
            return None
        if self.half_width == 0:
            return float(self.mean == 0)
        return float(2 * stdtr(self.n - 1, -abs(self.mean) / self.half_width * _quantile(self.n)))


def estimate(values: Mapping[int, float | None]) -> Estimate | None:
    """The estimate of the values that are finite numbers; None where there are none."""
    finite = {seed: value for seed, value in values.items() if value is not None and math.isfinite(value)}
    return Estimate(finite) if finite else None


def paired(values: Estimate | None, other: Estimate | None) -> Estimate | None:
    """The differences of `values` from `other`, seed by seed; None without a common seed.

    Runs of one seed read the same data in the same order, so what a seed does to both is no part of it.

    >>> paired(Estimate({0: 5.0, 1: 7.0}), Estimate({0: 4.0, 1: 6.5, 2: 0.0})).values
    {0: 1.0, 1: 0.5}
    """
    if values is None or other is None:
        return None
    return estimate({s: v - other.values[s] for s, v in values.values.items() if s in other.values})


def holm(p_values: Mapping[str, float | None]) -> dict[str, float]:
    """Adjusts the p-values of several questions asked at once (Holm, 1979).

    Whoever calls real what has an adjusted value of at most alpha makes even one wrong claim in the family with a
    probability of at most alpha, however the questions depend on each other. Those without a p-value (None) are left
    out of the answer and of the count.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": None})
    {'a': 0.03, 'c': 0.06, 'b': 0.06}
    """
    asked = sorted((p, name) for name, p in p_values.items() if p is not None)
    adjusted, highest = {}, 0.0
    for rank, (p, name) in enumerate(asked):
        highest = max(highest, min(1.0, p * (len(asked) - rank)))
        adjusted[name] = highest
    return adjusted
