"""The time that is left: a range that holds what comes, and closes as more is known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin_eqx.ablation.estimate import Pace, Range, Timed, remaining

pytestmark = pytest.mark.core

seconds = st.floats(1.0, 1e4)


def left(*known) -> Range:
    found = remaining(*known)
    assert found is not None
    return found


def test_nothing_measured_gives_no_figure_and_nothing_left_none():
    assert remaining({0: Pace(1.0)}, {0: 3}, [], 2) is None
    assert remaining({0: Pace(1.0)}, {0: 0}, [], 2) == (0.0, 0.0)


@given(
    st.dictionaries(st.integers(0, 4), st.tuples(seconds, st.integers(1, 5)), min_size=1), st.integers(1, 4)
)
def test_cells_that_are_measured_are_counted_as_they_were(cells, slots):
    paces = {cell: Pace(1.0, runs=[Timed(0.0, length)]) for cell, (length, _) in cells.items()}
    found = left(paces, {cell: count for cell, (_, count) in cells.items()}, [], slots)
    total = sum(length * count for length, count in cells.values())
    longest = max(length for length, _ in cells.values())
    # No schedule is shorter than this, and the longest-first one is at most a run longer.
    assert found.low <= max(total / slots, longest) <= found.high
    assert found.high <= 1.1 * max(total / slots, longest) + 1e-6


@given(st.lists(seconds, min_size=2, max_size=5), st.floats(0.5, 2.0))
def test_what_is_guessed_from_others_holds_what_it_turns_out_to_be(works, rate):
    """Blocks that compute within a factor of two of each other."""
    paces = {cell: Pace(work) for cell, work in enumerate(works)}
    paces[0].runs.append(Timed(0.0, works[0]))
    guessed = left(paces, dict.fromkeys(paces, 1), [], 1)
    truth = works[0] + sum(rate * work for work in works[1:])
    if 0.6 <= rate <= 1.8:
        assert guessed.low <= truth <= guessed.high
    for cell, work in enumerate(works[1:], 1):
        paces[cell].runs.append(Timed(0.0, rate * work))
    known = left(paces, dict.fromkeys(paces, 1), [], 1)
    assert known.low <= truth <= known.high
    assert known.high / known.low <= guessed.high / guessed.low + 1e-9


def test_what_is_done_of_a_run_is_left_out():
    paces = {0: Pace(1.0, runs=[Timed(0.0, 100.0)])}
    assert remaining(paces, {0: 1}, [(0, 0.75)], 2) == pytest.approx((22.5, 27.5))
    assert remaining(paces, {0: 2}, [(0, 0.75)], 2) == pytest.approx((90.0, 110.0))
    assert remaining(paces, {0: 2}, [(0, 0.75)], 1) == pytest.approx((112.5, 137.5))


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (3.0, 3.2, "about 5 s"),
        (41.0, 63.0, "40 s to 65 s"),
        (70.0, 130.0, "70 s to 2 min"),
        (1700.0, 1720.0, "about 30 min"),
        (3000.0, 7300.0, "50 min to 2 h"),
        (10_000.0, 40_000.0, "2 h 45 min to 11 h"),
    ],
)
def test_it_is_said_no_more_exactly_than_it_is_known(low, high, said):
    assert str(Range(low, high)) == said


def test_the_start_of_a_run_counts_at_the_upper_end_alone():
    """A later run of the cell finds its program compiled, one of another cell does not."""
    paces = {0: Pace(1.0, projected=Timed(30.0, 10.0)), 1: Pace(1.0)}
    assert left(paces, {0: 1, 1: 0}, [], 1) == pytest.approx((8.0, 43.5))
    assert left(paces, {0: 1, 1: 1}, [], 1) == pytest.approx((8.0 + 4.8, 43.5 + 54.3))
