"""Makes a variant as large as the baseline: in parameters, FLOPs, cache bytes or seconds a step.

What a size may be is for the blocks to say: a value is valid if the model can be built with it. So the search
knows no divisor of a width, and holds for blocks that nobody has written yet.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from griffin_eqx.ablation.design import Change, Matched
from griffin_eqx.ablation.plan import Adjust, Match, Measure
from griffin_eqx.ablation.sizes import sizes
from griffin_eqx.config import Config
from griffin_eqx.errors import PlanError
from griffin_eqx.pattern import MAX_LAYERS

CLOSE = 0.01
"""A mismatch up to this needs no explanation."""

_EXACT = 1e-3
"""No nearer value is looked for below this mismatch."""

_FARTHEST = 64
"""How many times larger than in the plan a size may become."""

_MAX_GAP = 2048
"""Values in a row that are tried before a size counts as not adjustable; no width has a coarser grain."""

_ROUNDS = 4
"""Measurements a search in seconds may take: each compiles a program."""

Timer = Callable[[Sequence[Config]], Sequence[float]]
"""Seconds that a training step of each configuration takes, measured in turns."""

WORDS: dict[Measure, str] = {
    "params": "non-embedding parameters",
    "flops": "training FLOPs a token",
    "cache": "bytes of cache",
    "step_time": "seconds a step",
}
"""What messages call a measure."""

_ORDER: dict[Measure, tuple[Adjust, ...]] = {
    "params": ("width", "mlp_width", "lru_width"),
    "flops": ("width", "mlp_width", "lru_width"),
    "cache": ("lru_width", "width"),
    "step_time": ("width", "mlp_width"),
}
"""What is tried where the plan leaves it open. Another depth is another comparison: the plan must ask for it."""

_COUNT = re.compile(r"([*@]\s*)([0-9]+)(\s*)\Z")


class Point(NamedTuple):
    """A value and what it comes to."""

    value: int
    measure: float


@dataclasses.dataclass(frozen=True)
class Found:
    """The valid values around a target.

    Attributes:
      adjust: Of which size.
      before: Its value in the plan.
      below: The largest that comes to the target or less; None where there is none.
      above: The smallest that comes to more.
      why: Why there is none at all, or no change; else empty.
    """

    adjust: Adjust
    before: int
    below: Point | None = None
    above: Point | None = None
    why: str = ""

    def nearest(self, target: float) -> Point | None:
        """The nearer of the two."""
        there = [point for point in (self.below, self.above) if point is not None]
        return min(there, key=lambda point: abs(point.measure / target - 1), default=None)

    def off(self, target: float) -> float:
        """How far off that is, as a fraction."""
        point = self.nearest(target)
        return float("inf") if point is None else abs(point.measure / target - 1)


def match(
    config: Config,
    target: Config,
    wanted: Match,
    *,
    timer: Timer | None = None,
    baseline: str = "the baseline",
) -> tuple[Config, Matched]:
    """Changes one size of a variant until it measures what the baseline does, as nearly as it can be.

    Args:
      config: The variant; `model.vocab_size` is set.
      target: The baseline, which can be built.
      wanted: How to match.
      timer: For `step_time`.
      baseline: What messages call it.

    Returns:
      The changed configuration, and what was done.

    Raises:
      PlanError: If nothing within the tolerance is possible.
      GriffinError: If the variant is wrong whatever its size.
    """
    if wanted.by == "step_time":
        return _match_seconds(config, target, wanted, timer, baseline)
    goal = measure_of(target, wanted)
    if not goal > 0:
        raise PlanError(f"match: {baseline} has no {WORDS[wanted.by]}, so nothing can be matched to it.")
    tried: list[_Attempt] = []
    for attempt in _attempts(config, wanted, goal):
        tried.append(attempt)
        if attempt.off <= CLOSE:
            break
    best = min(tried, key=lambda attempt: attempt.off)
    if best.point is None or best.off > wanted.tolerance:
        raise _impossible(config, tried, wanted, goal, baseline)
    return _done(best, best.point, wanted, [attempt for attempt in tried if attempt is not best])


@dataclasses.dataclass(frozen=True)
class _Attempt:
    """One way to the goal.

    Attributes:
      config: What the search began with.
      found: What it found.
      goal: What it searched for.
      earlier: What had been changed before it began.
    """

    config: Config
    found: Found
    goal: float
    earlier: Change | None = None

    @property
    def point(self) -> Point | None:
        return self.found.nearest(self.goal)

    @property
    def off(self) -> float:
        return self.found.off(self.goal)


def _attempts(config: Config, wanted: Match, goal: float) -> Iterator[_Attempt]:
    """Ways to the goal, the most natural first."""

    def attempt(config: Config, adjust: Adjust, earlier: Change | None = None) -> _Attempt:
        found = _search(config, adjust, goal, lambda one: measure_of(one, wanted))
        return _Attempt(config, found, goal, earlier)

    if wanted.adjust is not None:
        yield attempt(config, wanted.adjust)
        return
    first, *rest = _ORDER[wanted.by]
    coarse = attempt(config, first)
    yield coarse
    if first == "width":
        # Widths come in steps as large as a head; another width makes up for what one of them leaves.
        sides = [point for point in (coarse.found.below, coarse.found.above) if point is not None]
        for point in sorted(sides, key=lambda point: abs(point.measure - goal)):
            moved = with_size(config, first, point.value)
            assert moved is not None
            for finer in ("mlp_width", "lru_width"):
                yield attempt(moved, finer, Change(first, coarse.found.before, point.value))
    for adjust in rest:
        yield attempt(config, adjust)


def measure_of(config: Config, wanted: Match) -> float:
    """The counted measure of a configuration.

    Raises:
      GriffinError: If the model cannot be built.
    """
    counted = sizes(config, cache_length=wanted.length)
    if wanted.by == "params":
        return float(counted.parameters_non_embedding)
    return counted.training_flops_per_token if wanted.by == "flops" else float(counted.cache_bytes)


def with_size(config: Config, adjust: Adjust, value: int) -> Config | None:
    """The configuration with another width or depth; None where the pattern has no count to change."""
    if adjust != "depth":
        return _with_model(config, **{adjust: value})
    pattern, count = _COUNT.subn(lambda found: f"{found[1]}{value}{found[3]}", config.model.pattern)
    return _with_model(config, pattern=pattern) if count else None


def size_of(config: Config, adjust: Adjust) -> int | None:
    """The value of a width or depth; None where the pattern has no count at its end."""
    model = config.model
    if adjust == "depth":
        found = _COUNT.search(model.pattern)
        return int(found[2]) if found else None
    if adjust == "width":
        return model.width
    return model.resolved_lru_width if adjust == "lru_width" else model.resolved_mlp_width


def _with_model(config: Config, **changes: object) -> Config:
    return msgspec.structs.replace(config, model=msgspec.structs.replace(config.model, **changes))


def _adjusts(wanted: Match) -> tuple[Adjust, ...]:
    return _ORDER[wanted.by] if wanted.adjust is None else (wanted.adjust,)


def _search(config: Config, adjust: Adjust, goal: float, measure: Callable[[Config], float]) -> Found:
    """Finds the valid values next to the goal, by interpolation; the measure is taken to grow with the value."""
    before = size_of(config, adjust)
    if before is None:
        return Found(adjust, 0, why="its pattern does not end in a count")
    points = _Points(config, adjust, measure, MAX_LAYERS if adjust == "depth" else before * _FARTHEST)
    start = points.around(before)
    if start is None:
        return Found(adjust, before, why=f"no {adjust} near {before} can be built ({points.said})")
    below, above = (start, None) if start.measure <= goal else (None, start)
    first = last = start
    while above is None and (point := points.around(2 * last.value, least=last.value + 1)):
        below, above = (point, None) if point.measure <= goal else (below, point)
        last = point
    while below is None and (point := points.around(last.value // 2, most=last.value - 1)):
        below, above = (point, above) if point.measure <= goal else (None, point)
        last = point
    if first.value != last.value and first.measure == last.measure:
        return Found(adjust, before, *_sides(first, goal), why=f"{adjust} changes nothing of it")
    for turn in itertools.count():
        if not (below and above) or min(above.measure - goal, goal - below.measure) <= _EXACT * goal:
            break
        # Every third guess is the middle, so that the range ends up empty whatever shape the measure has.
        guess = (below.value + above.value) // 2 if turn % 3 == 2 else _interpolated(below, above, goal)
        point = points.around(guess, least=below.value + 1, most=above.value - 1)
        if point is None:
            break
        below, above = (point, above) if point.measure <= goal else (below, point)
    return Found(adjust, before, below, above)


def _interpolated(below: Point, above: Point, goal: float) -> int:
    """The value at the goal if the measure grew as a power of it: parameters nearly do."""
    if not 0 < below.measure < above.measure:
        return (below.value + above.value) // 2
    part = math.log(goal / below.measure) / math.log(above.measure / below.measure)
    return round(below.value * (above.value / below.value) ** part)


def _sides(point: Point, goal: float) -> tuple[Point | None, Point | None]:
    return (point, None) if point.measure <= goal else (None, point)


class _Points:
    """What values come to; each is worked out once."""

    def __init__(self, config: Config, adjust: Adjust, measure: Callable[[Config], float], most: int):
        self._config = config
        self._adjust: Adjust = adjust
        self._measure = measure
        self._most = most
        self._known: dict[int, Point | None] = {}
        self.said = ""
        """Why the last value that cannot be built cannot."""

    def at(self, value: int) -> Point | None:
        if value not in self._known:
            changed = with_size(self._config, self._adjust, value)
            try:
                self._known[value] = Point(value, self._measure(changed)) if changed else None
            except ValueError as error:  # of a block: this size does not fit it
                self.said = str(error).splitlines()[0]
                self._known[value] = None
        return self._known[value]

    def around(self, value: int, *, least: int = 1, most: int | None = None) -> Point | None:
        """The valid value nearest to one, in a range."""
        most = self._most if most is None else min(most, self._most)
        for candidate in _outwards(value, least, most):
            if point := self.at(candidate):
                return point
        return None


def _outwards(value: int, least: int, most: int) -> Iterator[int]:
    value = min(max(value, least), most)
    if least <= value <= most:
        yield value
    for away in range(1, _MAX_GAP):
        if value - away < least and value + away > most:
            return
        if value + away <= most:
            yield value + away
        if value - away >= least:
            yield value - away


def _done(best: _Attempt, point: Point, wanted: Match, others: Sequence[_Attempt]) -> tuple[Config, Matched]:
    found, goal = best.found, best.goal
    nearest = ""
    if best.off > CLOSE:
        other = found.above if point is found.below else found.below
        up = "up" if point is found.below else "down"
        nearest = (
            f"the next {found.adjust} {up}, {other.value}, is {_off(other.measure, goal)}"
            if other is not None
            else found.why or f"there is no {found.adjust} further {up} that can be built"
        )
        if names := dict.fromkeys(one.found.adjust for one in others if one.found.adjust != found.adjust):
            nearest += f"; {', '.join(names)}: no nearer"
    last = Change(found.adjust, found.before, point.value)
    changes = [change for change in (best.earlier, last) if change and change.before != change.after] or [
        last
    ]
    matched = Matched(
        by=wanted.by,
        adjust=changes[0].adjust,
        before=changes[0].before,
        after=changes[0].after,
        finer=changes[1] if len(changes) == 2 else None,
        target=goal,
        reached=point.measure,
        nearest=nearest,
    )
    # As it was where nothing had to change: a width that was left out stays so.
    changed = best.config if last.before == last.after else with_size(best.config, last.adjust, last.after)
    assert changed is not None
    return changed, matched


def _impossible(
    config: Config, tried: Sequence[_Attempt], wanted: Match, goal: float, baseline: str
) -> PlanError:
    lines = [
        f"cannot be matched to {baseline} in {WORDS[wanted.by]} ({goal:,.0f}) within the tolerance of "
        f"{wanted.tolerance:.3g}."
    ]
    lines += [f"  {_told(attempt.found, goal)}" for attempt in tried if attempt.earlier is None]
    tried_ones = {attempt.found.adjust for attempt in tried}
    rest: list[Adjust] = [adjust for adjust in (*_ORDER[wanted.by], "depth") if adjust not in tried_ones]
    offers = []
    for adjust in rest:
        found = _search(config, adjust, goal, lambda one: measure_of(one, wanted))
        if (point := found.nearest(goal)) and found.off(goal) <= wanted.tolerance:
            offers.append(f'match.adjust = "{adjust}" ({adjust}={point.value}: {_off(point.measure, goal)})')
    ways = [*offers, "a larger match.tolerance", "`match = false` in the variant's table"]
    lines.append(f"Try {', or '.join(ways)}.")
    return PlanError("\n".join(lines))


def _told(found: Found, goal: float) -> str:
    sides = [
        f"{found.adjust}={point.value:,} is {_off(point.measure, goal)}"
        for point in (found.below, found.above)
        if point is not None
    ]
    nothing = [] if found.below or found.above else [f"no {found.adjust} will do"]
    return "; ".join([*nothing, *sides, *([found.why] if found.why else [])])


def _off(measure: float, goal: float) -> str:
    fraction = measure / goal - 1
    if abs(fraction) < 5e-5:
        return "equal"
    if fraction >= 1:
        return f"{fraction + 1:.3g} times as much"
    return f"{abs(fraction) * 100:.2g} % {'over' if fraction > 0 else 'under'}"


def _match_seconds(
    config: Config, target: Config, wanted: Match, timer: Timer | None, baseline: str
) -> tuple[Config, Matched]:
    """Measures, asks for as many more FLOPs as seconds are missing, and measures again.

    Seconds are noisy and each measurement compiles a program, so there are few of them.
    """
    if timer is None:
        raise ValueError("To match by step_time, pass a timer.")
    flops = Match(by="flops", tolerance=float("inf"))
    adjusts = _adjusts(wanted)
    best: tuple[float, Point, float, Adjust] | None = None
    tried: set[tuple[Adjust, int]] = set()
    for adjust in adjusts:
        before = size_of(config, adjust)
        value = before
        while value is not None and (adjust, value) not in tried and len(tried) < _ROUNDS * len(adjusts):
            tried.add((adjust, value))
            changed = with_size(config, adjust, value)
            assert changed is not None
            try:
                counted = measure_of(changed, flops)
            except ValueError:
                found = _search(config, adjust, measure_of(target, flops), lambda one: measure_of(one, flops))
                nearest = found.nearest(measure_of(target, flops))
                value = nearest.value if nearest else None
                continue
            goal, seconds = timer([target, changed])
            off = abs(seconds / goal - 1)
            if best is None or off < best[0]:
                best = off, Point(value, seconds), goal, adjust
            if off <= CLOSE:
                break
            wished = counted * goal / seconds
            found = _search(config, adjust, wished, lambda one: measure_of(one, flops))
            nearest = found.nearest(wished)
            value = nearest.value if nearest else None
        if best is not None and best[0] <= CLOSE:
            break
    if best is None or best[0] > wanted.tolerance:
        said = "" if best is None else f"\n  {best[3]}={best[1].value} is {_off(best[1].measure, best[2])}"
        raise PlanError(
            f"cannot be matched to {baseline} in {WORDS['step_time']} within the tolerance of "
            f"{wanted.tolerance:.3g}.{said}\nTry a larger match.tolerance (seconds are noisy), another "
            "match.adjust, or `match = false` in the variant's table."
        )
    off, point, goal, adjust = best
    before = size_of(config, adjust)
    changed = with_size(config, adjust, point.value)
    assert changed is not None
    assert before is not None
    nearest = "" if off <= CLOSE else f"no nearer in {len(tried)} measurements"
    return changed, Matched(
        by="step_time",
        adjust=adjust,
        before=before,
        after=point.value,
        target=goal,
        reached=point.measure,
        nearest=nearest,
    )
