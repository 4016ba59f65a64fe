"""How long an ablation will still take: a range, from speeds measured while it runs. Imports no JAX.

Starting a run (JAX, compiling, the first evaluation) takes its time whatever the run's length, and is less for a later
run of the same cell, whose program is in the cache; so it counts towards the upper end only. A cell that has finished
a run is known to about a tenth. One whose first run is under way is projected from its speed. One that has not begun
is guessed from its FLOPs, at the slowest and the fastest rate seen elsewhere, and widened; different blocks compute
at very different rates. So the range is wide at first and closes as cells get their turn.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

FINISHED, PROJECTED, GUESSED = (0.9, 1.1), (0.8, 1.35), (0.6, 1.8)
"""By what seconds known in each way are multiplied for the range's ends. Evaluations and saves come on top of steps,
so a projection errs low."""


class Range(NamedTuple):
    """Seconds, from and to."""

    low: float
    high: float

    def __str__(self) -> str:
        low, high = (_round(seconds) for seconds in self)
        return f"about {_say(high)}" if low == high else f"{_say(low)} to {_say(high)}"


class Timed(NamedTuple):
    """Wall seconds of a run.

    Attributes:
      start: Until its first step was done.
      rest: From there to its end.
    """

    start: float
    rest: float


@dataclasses.dataclass
class Pace:
    """What is known of the speed of a cell.

    Attributes:
      work: Training FLOPs of one of its runs.
      runs: Its runs that have finished.
      projected: One that is under way, its rest by its speed so far; None before its first step.
    """

    work: float
    runs: list[Timed] = dataclasses.field(default_factory=list)
    projected: Timed | None = None

    @property
    def known(self) -> tuple[float, Range] | None:
        """The longest start, and a run without it; None before anything was measured."""
        if self.runs:
            rest = sum(run.rest for run in self.runs) / len(self.runs)
            return max(run.start for run in self.runs), Range(*(rest * factor for factor in FINISHED))
        if self.projected is not None:
            return self.projected.start, Range(*(self.projected.rest * factor for factor in PROJECTED))
        return None


def remaining(
    paces: Mapping[int, Pace], outstanding: Mapping[int, int], spent: Sequence[tuple[int, float]], slots: int
) -> Range | None:
    """Estimates the time until everything has ended.

    Args:
      paces: Of each cell.
      outstanding: How many runs of each cell have not ended, those under way included.
      spent: For each run that is under way its cell and the part of it that is done, 0 to 1.
      slots: How many run at once.

    Returns:
      The range; None before anything was measured.
    """
    known = {cell: found for cell, pace in paces.items() if (found := pace.known)}
    left = {cell: count for cell, count in outstanding.items() if count}
    if not left:
        return Range(0.0, 0.0)
    if not known:
        return None
    starts = (0.0, max(start for start, _ in known.values()))
    rates = [tuple(seconds / paces[cell].work for seconds in rest) for cell, (_, rest) in known.items()]
    ends = []
    for end in (0, 1):
        pick = (min, max)[end]
        each = {}
        for cell in left:
            if cell in known:
                start, rest = known[cell]
                each[cell] = rest[end] + start * end
            else:
                guess = pick(rate[end] for rate in rates) * paces[cell].work * GUESSED[end]
                each[cell] = guess + starts[end]
        total = sum(each[cell] * count for cell, count in left.items())
        total -= sum(each[cell] * part for cell, part in spent if cell in each)
        # However many workers there are, no run is cut in two.
        whole = [seconds for cell, seconds in each.items() if left[cell] > sum(c == cell for c, _ in spent)]
        begun = [each[cell] * (1 - part) for cell, part in spent if cell in each]
        ends.append(max(total / slots, *whole, *begun, 0.0))
    return Range(*ends)


def _round(seconds: float) -> int:
    """To what can be said with a straight face: 5 seconds, 1 minute, 5 minutes, half an hour."""
    for limit, unit in ((90, 5), (20 * 60, 60), (3 * 3600, 300)):
        if seconds < limit:
            return max(unit, round(seconds / unit) * unit)
    return round(seconds / 1800) * 1800


def _say(seconds: int) -> str:
    if seconds <= 90:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{round(seconds / 60)} min"
    hours, rest = divmod(round(seconds / 60), 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"
