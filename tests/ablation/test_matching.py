"""Variants are made as large as the baseline, or it is said how near they can come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import griffin_eqx as gx
from griffin_eqx.ablation import matching
from griffin_eqx.ablation.matching import Point, match, measure_of, size_of, with_size
from griffin_eqx.ablation.plan import Match
from griffin_eqx.errors import OptionError, PlanError

from .models import config_of, patterns

ANY = float(10**9)
"""A tolerance that lets everything pass, so that what is nearest can be looked at."""

widths = st.sampled_from([32, 64, 96, 128])


@given(patterns(), patterns(), widths, st.sampled_from(["params", "flops"]))
def test_any_two_patterns_come_within_one_percent_or_it_is_said_why_not(one, other, width, by):
    baseline, variant = config_of(one, width=width), config_of(other, width=width)
    changed, matched = match(variant, baseline, Match(by=by, tolerance=ANY))
    whole, target = gx.describe(changed), gx.describe(baseline)
    if by == "params":
        assert (matched.reached, matched.target) == (
            whole.parameters_non_embedding,
            target.parameters_non_embedding,
        )
    else:
        assert matched.reached == pytest.approx(whole.training_flops_per_token)
        assert matched.target == pytest.approx(target.training_flops_per_token)
    assert abs(matched.mismatch) <= 0.01 or "the next " in matched.nearest or "further" in matched.nearest
    for change in matched.changes:
        assert size_of(changed, change.adjust) == change.after
    if not matched.changes:
        assert changed == variant


@given(
    st.sets(st.integers(1, 200), min_size=1, max_size=30),
    st.integers(1, 100),
    st.floats(1, 3),
    st.floats(1.0, 1e8),
)
def test_the_search_finds_the_values_next_to_the_goal(valid, before, power, goal):
    def measure(config):
        width = config.model.width
        if width not in valid:
            raise OptionError("head_dim", f"does not divide {width}")
        return float(width**power)

    config = config_of("rg_lru", width=before)
    reachable = sorted(value for value in valid if value <= before * 64)
    found = matching._search(config, "width", goal, measure)
    points = [Point(value, float(value**power)) for value in reachable]
    if not points:
        assert found.why
        return
    nearest = min(abs(point.measure / goal - 1) for point in points)
    if nearest > matching._EXACT:
        assert found.below == max((p for p in points if p.measure <= goal), default=None)
        assert found.above == min((p for p in points if p.measure > goal), default=None)
    assert found.off(goal) <= max(nearest, matching._EXACT)


def test_widths_too_coarse_are_made_up_for_by_the_mlp():
    baseline = config_of("rg_lru@4", width=128)
    variant = config_of("global_mqa[head_dim=64]@12", width=128)
    changed, matched = match(variant, baseline, Match(by="params"))
    assert [str(change).split()[0] for change in matched.changes] == ["width", "mlp_width"]
    assert changed.model.width % 64 == 0
    assert abs(matched.mismatch) < 0.01
    assert matched.nearest == ""


def test_what_is_left_out_follows_the_width_and_what_is_written_stays():
    baseline = config_of("rg_lru@8", width=128)
    changed, _ = match(config_of("rg_lru@4", width=128), baseline, Match(by="params", adjust="width"))
    assert changed.model.mlp_width is None
    assert changed.model.resolved_mlp_width == 3 * changed.model.width
    fixed = config_of("rg_lru@4", width=128, mlp_width=384)
    assert match(fixed, baseline, Match(by="params", adjust="width"))[0].model.mlp_width == 384


@pytest.mark.parametrize(
    ("pattern", "after"),
    [
        ("(rg_lru rg_lru local_mqa[head_dim=16])@3", "(rg_lru rg_lru local_mqa[head_dim=16])@12"),
        ("(rg_lru rg_lru local_mqa[head_dim=16]) * 1", "(rg_lru rg_lru local_mqa[head_dim=16]) * 4"),
        ("local_mqa[head_dim=16] rg_lru*3", "local_mqa[head_dim=16] rg_lru*11"),
    ],
)
def test_depth_is_the_count_at_the_end_of_the_pattern(pattern, after):
    baseline = config_of("(rg_lru rg_lru local_mqa[head_dim=16])@12")
    changed, matched = match(config_of(pattern), baseline, Match(by="params", adjust="depth"))
    assert changed.model.pattern == after
    assert matched.adjust == "depth"


def test_the_nearest_is_told_in_words():
    baseline, variant = (config_of(f"local_mqa[head_dim=32]@{depth}", width=128) for depth in (6, 5))
    _, matched = match(variant, baseline, Match(by="params", adjust="width", tolerance=0.5))
    assert matched.nearest == "the next width up, 160, is 29 % over"
    assert f"{matched.mismatch:.3f}" == "-0.167"


@pytest.mark.parametrize(
    ("pattern", "wanted", "message"),
    [
        (
            "local_mqa[head_dim=32]@5",
            Match(by="params", adjust="width"),
            "cannot be matched to hawk in non-embedding parameters (1,364,480) within the tolerance of 0.05.\n"
            "  width=128 is 31 % under; width=160 is 7.1 % over\n"
            'Try match.adjust = "mlp_width" (mlp_width=603: 0.038 % under), or match.adjust = "depth" (depth=7: ',
        ),
        (
            "local_mqa[head_dim=32,mlp=none] rg_lru[mlp=none]",
            Match(by="params", adjust="mlp_width"),
            "cannot be matched to hawk in non-embedding parameters (1,364,480) within the tolerance of 0.05.\n"
            "  mlp_width=384 is 91 % under; mlp_width changes nothing of it\nTry match.adjust = ",
        ),
        (
            "rg_lru local_mqa[head_dim=32]",
            Match(by="params", adjust="depth"),
            "cannot be matched to hawk in non-embedding parameters (1,364,480) within the tolerance of 0.05.\n"
            "  no depth will do; its pattern does not end in a count\nTry match.adjust = ",
        ),
        (
            "global_mqa[head_dim=32]",
            Match(by="cache", adjust="width", length=4096),
            "cannot be matched to hawk in bytes of cache (18,432) within the tolerance of 0.05.\n"
            "  width=128 is 56.9 times as much; width changes nothing of it\nTry ",
        ),
    ],
)
def test_what_cannot_be_matched_says_what_is_nearest_and_what_else_to_try(pattern, wanted, message):
    baseline = config_of("rg_lru@6", width=128)
    with pytest.raises(PlanError) as caught:
        match(config_of(pattern, width=128), baseline, wanted, baseline="hawk")
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("a larger match.tolerance, or `match = false` in the variant's table.")


def test_caches_of_a_window_are_matched_by_the_width_of_the_recurrence():
    baseline = config_of("local_mqa[head_dim=16,window_size=32]@4")
    changed, matched = match(config_of("rg_lru@4"), baseline, Match(by="cache", length=4096))
    assert matched.adjust == "lru_width"
    assert abs(matched.mismatch) < 0.05
    assert gx.describe(changed, seq_len=4096).total_cache_bytes == matched.reached


def test_step_time_is_matched_by_a_few_measurements():
    """A machine on which a step takes a time for each layer beside that for each FLOP."""
    asked = []

    def timer(configs):
        asked.append(configs)
        return [
            1e-9 * measure_of(config, Match(by="flops")) + 2e-4 * len(gx.Pattern.parse(config.model.pattern))
            for config in configs
        ]

    baseline, variant = config_of("rg_lru@6", width=128), config_of("global_mqa[head_dim=16]@3", width=128)
    changed, matched = match(variant, baseline, Match(by="step_time"), timer=timer)
    assert abs(matched.mismatch) < 0.05
    assert timer([changed])[0] == matched.reached
    assert all(configs[0] == baseline for configs in asked[:-1])
    assert len(asked) < 10


def test_a_size_is_read_as_it_is_set():
    config = config_of("(rg_lru local_mqa)@3", width=96)
    for adjust in ("width", "lru_width", "mlp_width", "depth"):
        changed = with_size(config, adjust, 7)
        assert changed is not None
        assert size_of(changed, adjust) == 7
    assert with_size(config_of("rg_lru"), "depth", 2) is None
