"""A plan worked out: overrides in their order, budgets in steps, sizes matched, runs with their seeds."""

import jax
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin_eqx.ablation.design import Design, planned_runs, possible_runs
from griffin_eqx.ablation.folder import refuse_contradictions, take_design
from griffin_eqx.ablation.load import from_tree
from griffin_eqx.ablation.timing import StepTimer, digest, measure
from griffin_eqx.ablation.work_out import work_out
from griffin_eqx.config import dumps, load_file
from griffin_eqx.errors import PlanError, RunError

from .models import config_of

SMALL = {"data": {"seq_len": 16, "batch_size": 4}, "model": {"width": 64, "lru_width": 64}}


def plan_of(**changes):
    tree = {
        "name": "test",
        "config": SMALL,
        "variants": {"hawk": {"pattern": "rg_lru@2"}, "mqa": {"pattern": "G[head_dim=16]@2"}},
        "tasks": {"induction_heads": {}},
        "budget": {"steps": 10},
    }
    return from_tree({**tree, **changes})


def cell_of(design, variant, task="induction_heads"):
    return next(cell for cell in design.cells if (cell.variant, cell.task) == (variant, task))


def test_overrides_lie_over_each_other_base_plan_task_variant():
    design = work_out(
        plan_of(
            config={
                **SMALL,
                "data": {"seq_len": 32},
                "optimizer": {"weight_decay": 0.2, "beta1": 0.8, "beta2": 0.8},
            },
            tasks={
                "copy": {"task": "selective_copying", "config": {"optimizer": {"beta1": 0.7, "beta2": 0.7}}}
            },
            variants={"a": {"pattern": "R"}, "b": {"config": {"optimizer": {"beta2": 0.6}}}},
        )
    )
    optimizers = [cell.config.optimizer for cell in design.cells]
    assert [(o.weight_decay, o.beta1, o.beta2) for o in optimizers] == [(0.2, 0.7, 0.7), (0.2, 0.7, 0.6)]
    assert [cell.config.data.task for cell in design.cells] == ["selective_copying"] * 2
    assert [cell.config.model.pattern for cell in design.cells] == ["rg_lru", "rg_lru*2 local_mqa"]


def test_a_cell_is_what_training_would_resolve_and_says_where_it_is_from():
    design = work_out(plan_of())
    assert design.baseline == "hawk"
    assert design.seeds == (0, 1, 2)
    cell = cell_of(design, "mqa")
    assert cell.config.model.pattern == "global_mqa[head_dim=16]*2"
    assert cell.config.model.vocab_size == 16
    assert (cell.config.train.final_test, cell.config.train.keep_best) == (True, False)
    assert cell.metric == "accuracy"
    assert cell.blocks == {"global_mqa": "griffin_eqx 0.1.0"}
    assert msgspec.json.decode(msgspec.json.encode(design), type=Design) == design


@given(st.integers(64, 10**6), st.sampled_from(["tokens", "flops"]))
def test_a_budget_comes_to_whole_steps(tokens, kind):
    """A step has 64 tokens."""
    variants = {"hawk": {"pattern": "rg_lru@2"}}
    flops = work_out(plan_of(variants=variants)).cells[0].sizes.training_flops_per_token
    budget = tokens if kind == "tokens" else tokens * flops
    (cell,) = work_out(plan_of(variants=variants, budget={kind: budget})).cells
    off = cell.config.train.steps * 64 - tokens
    assert 0 <= off < 64 if kind == "tokens" else -32 <= off <= 32


def test_equal_flops_are_other_steps_for_a_larger_variant():
    design = work_out(
        plan_of(variants={"a": {"pattern": "R@2"}, "b": {"pattern": "R@4"}}, budget={"flops": 1e10})
    )
    spent = [cell.config.train.steps * cell.sizes.training_flops_per_token * 64 for cell in design.cells]
    assert spent == pytest.approx([1e10, 1e10], rel=1e-2)
    assert design.cells[0].config.train.steps > design.cells[1].config.train.steps


def test_a_task_has_its_own_budget_and_learning_rates():
    tasks = {
        "induction_heads": {},
        "mqar": {
            "budget": {"tokens": 640},
            "learning_rates": [3e-3, 1e-3],
            "config": {"data": {"seq_len": 32}},
        },
    }
    design = work_out(plan_of(tasks=tasks, learning_rates=[1e-2]))
    one, other = cell_of(design, "hawk"), cell_of(design, "hawk", "mqar")
    assert (one.config.train.steps, one.learning_rates) == (10, (1e-2,))
    assert (other.config.train.steps, other.learning_rates) == (5, (1e-3, 3e-3))
    assert other.sizes.cache_length == 16


def test_minutes_come_to_steps_by_the_measured_speed():
    design = work_out(plan_of(budget={"minutes": 2}), timer=lambda configs: [0.5, 1.5])
    assert [cell.config.train.steps for cell in design.cells] == [240, 80]
    with pytest.raises(PlanError, match=r"plan test: budget\.minutes: 0\.001 is less than the 0\.5 seconds"):
        work_out(plan_of(budget={"minutes": 0.001}), timer=lambda configs: [0.5, 1.5])


def test_sizes_are_matched_but_for_the_baseline_and_who_is_left_out():
    variants = {
        "small": {"pattern": "R@2"},
        "hawk": {"pattern": "R@3"},
        "free": {"pattern": "R@8", "match": False},
    }
    design = work_out(plan_of(variants=variants, baseline="hawk", match={"by": "params"}))
    small, hawk, free = design.cells
    assert small.matched is not None
    assert abs(small.matched.mismatch) <= 0.01
    assert small.matched.target == hawk.sizes.parameters_non_embedding
    assert small.matched.reached == small.sizes.parameters_non_embedding
    assert (hawk.matched, free.matched) == (None, None)


def test_seeds_move_data_and_weights_and_an_init_seed_the_weights_alone():
    variants = {"one": {"pattern": "R"}, "other": {"pattern": "R", "init_seed": 100}}
    design = work_out(plan_of(variants=variants, seeds=[3, 5], learning_rates=[1e-3, 1e-2]))
    one, other = ([run.config.train for run in possible_runs(design, cell)] for cell in design.cells)
    assert [(train.seed, train.init_seed) for train in one] == [(3, None), (5, None)] * 2
    assert [(train.seed, train.init_seed) for train in other] == [(3, 103), (5, 105)] * 2
    assert planned_runs(design, design.cells[0]) == 3
    assert planned_runs(work_out(plan_of(learning_rates=[1e-3, 1e-2], tuning="all")), design.cells[0]) == 6


# What has begun


def begin(folder, design):
    for cell in design.cells:
        for run in possible_runs(design, cell):
            (folder / run.path).mkdir(parents=True, exist_ok=True)
            (folder / run.path / "config.toml").write_text(dumps(run.config))


def test_a_plan_may_grow_and_shrink_once_runs_have_begun(tmp_path):
    first = work_out(plan_of(seeds=1))
    take_design(tmp_path, first)
    begin(tmp_path, first)
    more = {"hawk": {"pattern": "rg_lru@2"}, "new": {"pattern": "R@3"}}
    tasks = {"induction_heads": {}, "mqar": {"config": {"data": {"seq_len": 32}}}}
    grown = work_out(plan_of(variants=more, tasks=tasks, seeds=4, learning_rates=[3e-3, 1e-3]))
    take_design(tmp_path, grown)
    assert msgspec.json.decode((tmp_path / "design.json").read_bytes(), type=Design) == grown


@pytest.mark.parametrize("lost", [False, True])
def test_a_plan_that_contradicts_a_run_is_refused_with_the_differences(tmp_path, lost):
    first = work_out(plan_of())
    take_design(tmp_path, first)
    begin(tmp_path, first)
    if lost:
        (tmp_path / "design.json").unlink()
    with pytest.raises(RunError) as caught:
        take_design(tmp_path, work_out(plan_of(budget={"steps": 11})))
    assert str(caught.value) == (
        "Runs of 'hawk' on 'induction_heads' have begun with another configuration.\n"
        "  train.steps: 10 there, 11 asked for\n"
        "Runs of 'mqa' on 'induction_heads' have begun with another configuration.\n"
        "  train.steps: 10 there, 11 asked for\n"
        f"  {tmp_path}\n  Name another folder with --folder, or change the plan back."
    )
    refuse_contradictions(tmp_path, first)


def test_what_training_writes_is_what_the_design_says(tmp_path):
    """So that a run, taken up again, is never taken for another one."""
    run = next(possible_runs(design := work_out(plan_of()), cell_of(design, "mqa")))
    (tmp_path / "config.toml").write_text(dumps(run.config))
    assert load_file(tmp_path / "config.toml") == run.config


# Speed


def test_a_speed_is_measured_once_and_kept(tmp_path):
    calls = []

    def slow(configs):
        calls.append(configs)
        return [0.25, 0.5][: len(configs)]

    path = tmp_path / "folder" / "measured.json"
    configs = [config_of("rg_lru"), config_of("rg_lru*2")]
    assert StepTimer(path, threads=1, measure=slow)(configs) == (0.25, 0.5)
    assert StepTimer(path, threads=2, measure=slow)(configs) == (0.25, 0.5)
    assert len(calls) == 1
    assert StepTimer(path, measure=slow)(configs[:1]) == (0.25,)
    assert len(calls) == 2
    path.write_text("[")
    with pytest.raises(RunError, match=r"measured\.json cannot be read"):
        StepTimer(path)


def test_speed_does_not_depend_on_steps_seeds_and_learning_rates():
    config = config_of("rg_lru")
    for section, change in (("train", {"steps": 7, "seed": 3}), ("optimizer", {"learning_rate": 1.0})):
        inner = msgspec.structs.replace(getattr(config, section), **change)
        assert digest(msgspec.structs.replace(config, **{section: inner})) == digest(config)
    assert digest(config_of("rg_lru", remat="none")) != digest(config)


def test_steps_are_timed_in_turns():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as users have it
        first, second = measure([config_of("rg_lru", width=16), config_of("rg_lru*2", width=16)], rounds=2)
    assert first > 0
    assert second > 0
