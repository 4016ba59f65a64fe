"""Cuts a sequence of integers into repeated units: the search behind `Pattern.runs` and `str(pattern)`.

Wherever repeating a unit pays, it stands twice in a row: a *square* `u u`, with `u` itself no repetition. A
sequence of n symbols has only O(n log n) such squares (Crochemore, 1981), so a dynamic programme over them is
exact and still fast. They are found period by period, with Python integers as sets of n bits.
"""

from collections.abc import Sequence
from typing import NamedTuple

# The price of one layer in a unit; `count_cost` is on the same scale, so a count can cost half a layer.
LAYER_COST = 2


class Segment(NamedTuple):
    """Symbols `start` to `end`: the first `period` of them over and over, or written out if `period` is 0."""

    start: int
    end: int
    period: int


def segments(symbols: Sequence[int], *, count_cost: int, cut_cycles: bool) -> list[Segment]:
    """Cuts `symbols` into segments of the least total cost.

    A segment costs `LAYER_COST` for each symbol of its unit, and a repeated one `count_cost` more. Ties go to
    fewer segments, then to the longest first segment, then the longest second one, and so on.

    Args:
      symbols: Small integers from 0 up; equal layers have equal integers.
      count_cost: The price of a repeat count.
      cut_cycles: Whether a repeated segment may stop in the middle of its unit (after two whole ones).

    >>> segments([0, 0, 1, 0, 0, 1, 0, 0], count_cost=0, cut_cycles=False)
    [Segment(start=0, end=6, period=3), Segment(start=6, end=8, period=1)]
    >>> segments([0, 0, 1, 0, 0, 1, 0, 0], count_cost=0, cut_cycles=True)
    [Segment(start=0, end=8, period=3)]
    """
    n = len(symbols)
    periods = _square_periods(symbols)
    # A plan from i on is (cost, number of segments, -end of the first[, its period]); the least wins.
    best = [(0, 0, -n, 0)] * (n + 1)
    written_out = (0, 1, -n)
    ends: dict[tuple[int, int], tuple[int, int, int]] = {}  # (start, period): best place to end the segment
    for i in reversed(range(n)):
        if i + 1 < n:
            cost, count, _, _ = best[i + 1]
            written_out = min(written_out, (cost, count + 1, -(i + 1)))
        cost, count, end = written_out
        written_out = (cost + LAYER_COST, count, end)
        best[i] = (*written_out, 0)
        for period in periods[i]:
            here = (best[i + 2 * period][0], best[i + 2 * period][1], -(i + 2 * period))
            later = ends.get((i + (1 if cut_cycles else period), period), here)
            cost, count, end = ends[i, period] = min(here, later)
            best[i] = min(best[i], (cost + LAYER_COST * period + count_cost, count + 1, end, period))
    found = []
    start = 0
    while start < n:
        _, _, end, period = best[start]
        found.append(Segment(start, -end, period))
        start = -end
    return found


def _square_periods(symbols: Sequence[int]) -> list[list[int]]:
    """For each i, the periods p for which symbols[i:i+p] is no repetition and stands twice from i on."""
    n = len(symbols)
    planes = _bit_planes(symbols)
    periods: list[list[int]] = [[] for _ in symbols]
    for period in range(1, n // 2 + 1):
        starts = _ones(_agreement(planes, n, period), period)
        if not starts:
            continue
        for prime in _prime_factors(period):
            # A unit that is itself `prime` copies of something agrees with itself shifted by that something.
            shift = period // prime
            starts &= ~_ones(_agreement(planes, n, shift), period - shift)
        bits = bin(starts)[:1:-1]
        i = bits.find("1")
        while i >= 0:
            periods[i].append(period)
            i = bits.find("1", i + 1)
    return periods


def _bit_planes(symbols: Sequence[int]) -> list[int]:
    """Bit i of plane b is bit b of symbols[i]."""
    width = max(symbols, default=0).bit_length()
    return [int("0" + "".join("01"[s >> b & 1] for s in reversed(symbols)), 2) for b in range(width)]


def _agreement(planes: list[int], n: int, shift: int) -> int:
    """The set of i below n - shift with symbols[i] == symbols[i + shift]."""
    differ = 0
    for plane in planes:
        differ |= plane ^ (plane >> shift)
    return ~differ & ((1 << (n - shift)) - 1)


def _ones(bits: int, length: int) -> int:
    """The set of i such that i, i + 1, ..., i + length - 1 are all in `bits`; by doubling."""
    have = 1
    while have < length and bits:
        step = min(have, length - have)
        bits &= bits >> step
        have += step
    return bits


def _prime_factors(n: int) -> list[int]:
    factors = []
    candidate = 2
    while candidate * candidate <= n:
        if n % candidate == 0:
            factors.append(candidate)
            while n % candidate == 0:
                n //= candidate
        candidate += 1
    return [*factors, n] if n > 1 else factors
