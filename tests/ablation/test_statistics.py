"""Intervals mean what they say."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from griffin_eqx.ablation.statistics import Estimate, estimate, holm, paired, student_interval

pytestmark = pytest.mark.core

# Two-sided 95 % quantiles as printed in any table of Student's t, by degrees of freedom.
PRINTED = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 7: 2.365, 9: 2.262, 19: 2.093, 29: 2.045}

numbers = st.floats(-1e3, 1e3).map(lambda x: round(x, 6))
seeded = st.dictionaries(st.integers(0, 20), numbers, min_size=2, max_size=12)


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("pairing", [False, True])
def test_the_interval_covers_the_truth_as_often_as_it_says(seeds, pairing):
    """10,000 draws, whose own standard error is 0.22 %: 93.5 to 96.5 % is seven of them either way."""
    draws = np.random.default_rng(20240229)
    values = draws.normal(0.7, 0.03, (10_000, seeds))
    truth = 0.7
    if pairing:  # a strong effect of the seed, which pairing must take away
        shared = draws.normal(0, 1.0, values.shape)
        values, truth = (values + shared) - (draws.normal(0.6, 0.05, values.shape) + shared), 0.1
    mean, half = student_interval(values)
    covered = np.mean(np.abs(mean - truth) <= half)
    assert 0.935 <= covered <= 0.965


@pytest.mark.parametrize("freedom", PRINTED)
def test_the_quantile_is_the_printed_one(freedom):
    values = np.arange(freedom + 1.0)
    _, half = student_interval(values)
    standard_error = math.sqrt(sum((values - values.mean()) ** 2) / freedom / (freedom + 1))
    assert half / standard_error == pytest.approx(PRINTED[freedom], abs=5.1e-4)  # three printed digits


@given(seeded, numbers)
def test_a_shift_moves_the_interval_and_keeps_its_width(values, shift):
    before = Estimate(values)
    after = Estimate({seed: value + shift for seed, value in values.items()})
    assert after.mean == pytest.approx(before.mean + shift, abs=1e-9)
    assert after.half_width == pytest.approx(before.half_width, abs=1e-9)


@given(seeded)
def test_the_order_of_seeds_does_not_matter(values):
    backwards = Estimate(dict(reversed(values.items())))
    assert backwards.mean == pytest.approx(Estimate(values).mean, abs=1e-9)
    assert backwards.half_width == pytest.approx(Estimate(values).half_width, abs=1e-9)


@given(seeded)
def test_the_p_value_is_below_five_percent_where_the_interval_leaves_out_zero(values):
    found = Estimate(values)
    assert found.low is not None
    assert found.high is not None
    assert found.p_value is not None
    assume(min(abs(found.low), abs(found.high)) > 1e-9)  # on the border both are right
    assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)


@given(seeded, seeded)
def test_pairs_are_common_seeds_and_turn_their_sign_around(ours, theirs):
    forth, back = paired(Estimate(ours), Estimate(theirs)), paired(Estimate(theirs), Estimate(ours))
    common = ours.keys() & theirs.keys()
    if not common:
        assert forth is None
        assert back is None
        return
    assert forth is not None
    assert back is not None
    assert forth.values == {seed: ours[seed] - theirs[seed] for seed in forth.values}
    assert forth.values.keys() == common
    assert forth.mean == pytest.approx(-back.mean)
    assert forth.half_width == pytest.approx(back.half_width)


def test_what_a_seed_does_to_both_is_no_part_of_the_difference():
    luck = [0.3, -0.2, 0.1]
    ours = Estimate({seed: 0.5 + luck[seed] + 0.001 * seed for seed in range(3)})
    theirs = Estimate({seed: 0.4 + luck[seed] for seed in range(3)})
    difference = paired(ours, theirs)
    assert ours.half_width is not None
    assert ours.half_width > 0.5
    assert difference is not None
    assert difference.half_width == pytest.approx(4.303 * 0.001 / math.sqrt(3), rel=1e-3)


def test_one_seed_has_no_interval():
    found = Estimate({4: 0.25})
    assert (found.n, found.mean, found.half_width, found.low, found.high) == (1, 0.25, None, None, None)
    assert found.p_value is None
    assert found.constant
    with pytest.raises(ValueError, match="An interval needs at least two values"):
        student_interval(np.zeros((5, 1)))


@pytest.mark.parametrize(("value", "p"), [(0.0, 1.0), (0.1, 0.0), (-3.0, 0.0)])
def test_seeds_that_agree_have_an_interval_without_width_and_say_so(value, p):
    found = Estimate({0: value, 1: value, 2: value})
    assert (found.mean, found.half_width, found.constant, found.p_value) == (value, 0.0, True, p)


def test_what_is_not_finite_is_no_value():
    assert estimate({0: None, 1: math.nan, 2: math.inf}) is None
    found = estimate({0: None, 1: 0.5, 2: math.nan})
    assert found is not None
    assert found.values == {1: 0.5}
    with pytest.raises(ValueError, match="An estimate needs finite values"):
        Estimate({0: math.nan})
    with pytest.raises(ValueError, match="An estimate needs finite values"):
        Estimate({})


p_values = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=2), st.floats(0, 1), max_size=12)


@given(p_values, st.floats(0.001, 0.999))
def test_holms_adjusted_values_reject_what_his_procedure_rejects(given_p, alpha):
    rejected = set()
    for step, (p, name) in enumerate(sorted((p, name) for name, p in given_p.items())):
        if p * (len(given_p) - step) > alpha:
            break
        rejected.add(name)
    adjusted = holm(given_p)
    assert {name for name, p in adjusted.items() if p <= alpha} == rejected
    assert all(given_p[name] <= p <= 1 for name, p in adjusted.items())


def test_a_question_without_an_answer_is_not_counted():
    assert holm({"a": 0.01, "b": None}) == {"a": 0.01}


def test_holm_keeps_false_claims_rare():
    """Twelve variants that differ from the baseline by nothing: any claim is false, in at most 5 % of 400 plans.

    The bound of 8 % is 2.75 standard errors of 400 draws above 5 %.
    """
    draws = np.random.default_rng(7)
    wrong = 0
    for _ in range(400):
        base = draws.normal(size=5)
        differences = [Estimate(dict(enumerate(draws.normal(size=5) - base))) for _ in range(12)]
        adjusted = holm({str(i): difference.p_value for i, difference in enumerate(differences)})
        wrong += any(p <= 0.05 for p in adjusted.values())
    assert wrong <= 32
