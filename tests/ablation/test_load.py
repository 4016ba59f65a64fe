"""Plans survive being written and read; one that asks for what cannot be is refused with its place."""

import contextlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin_eqx.ablation.load import dumps, from_tree, load_plan, loads
from griffin_eqx.ablation.plan import Budget, Match, Plan, TaskPlan, Variant
from griffin_eqx.ablation.work_out import work_out
from griffin_eqx.errors import PlanError

MANY = settings(settings.get_profile("fuzz"))

GOOD = """
question = "Is it?"
seeds = 2
learning_rates = [1e-3, 3e-3]

[variants.hawk]
pattern = "rg_lru@3"

[variants.griffin]
pattern = "(rg_lru rg_lru local_mqa)@3"

[tasks.text]

[budget]
steps = 5
"""

names = st.from_regex(r"[a-z][a-z0-9_]{0,7}", fullmatch=True)
rates = st.lists(st.floats(1e-6, 1.0), max_size=3)
budgets = st.one_of(
    st.builds(Budget),
    st.builds(Budget, steps=st.integers(1, 10**6)),
    st.builds(Budget, minutes=st.floats(0.1, 100)),
    st.builds(Budget, flops=st.floats(1, 1e20)),
)
overrides = st.sampled_from(
    [{}, {"model": {"width": 96, "blocks": {"rg_lru": {"c": 4.0}}}}, {"data": {"seq_len": 8}}]
)
plans = st.builds(
    Plan,
    name=st.none() | names,
    title=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    base=st.sampled_from([None, "hawk-tiny"]),
    config=overrides,
    variants=st.dictionaries(
        names,
        st.builds(
            Variant,
            pattern=st.sampled_from([None, "rg_lru@2"]),
            config=overrides,
            match=st.booleans(),
            init_seed=st.integers(0, 9),
        ),
        max_size=3,
    ),
    tasks=st.dictionaries(
        names,
        st.builds(TaskPlan, config=overrides, budget=st.none() | budgets, learning_rates=st.none() | rates),
        max_size=2,
    ),
    budget=budgets,
    match=st.none()
    | st.builds(Match, by=st.sampled_from(["params", "flops"]), length=st.none() | st.integers(1, 9)),
    seeds=st.integers(1, 5) | st.lists(st.integers(0, 9), min_size=1, max_size=3),
    learning_rates=rates,
    tuning=st.sampled_from(["first", "all"]),
)


@given(plans)
def test_a_plan_survives_being_written_and_read(plan):
    assert loads(dumps(plan)) == plan


@MANY
@given(
    st.text(max_size=60)
    | st.sampled_from([GOOD, GOOD.replace("[", "[[")]).map(lambda text: text[: len(text) // 2])
)
def test_any_text_is_a_plan_or_a_plan_error(text):
    with contextlib.suppress(PlanError):
        loads(text)


def written(tmp_path, text, name="my_plan.toml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_file_gives_its_name_and_a_base_beside_it(tmp_path):
    written(tmp_path, "[model]\nwidth = 128\nlru_width = 128", "small.toml")
    plan = load_plan(written(tmp_path, 'base = "small.toml"\n' + GOOD))
    assert plan.name == "my_plan"
    design = work_out(plan)
    assert [cell.config.model.width for cell in design.cells] == [128, 128]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = 2", "seds = 2", "seds: there is no such key; did you mean seeds? It takes name, title, "),
        ("pattern = \"rg_lru@3\"", "patern = 3", "variants.hawk.patern: there is no such key; did you mean pattern?"),
        ("pattern = \"rg_lru@3\"", "pattern = 3", "variants.hawk.pattern: Expected `str | null`, got `int`"),
        ("steps = 5", "stesp = 5", "budget.stesp: there is no such key; did you mean steps?"),
        ("steps = 5", "steps = 0", "budget.steps: Expected `int` >= 1"),
        ("steps = 5", "steps = 5\ntokens = 1e6", "budget: both steps and tokens are given."),
        ("steps = 5", "tokens = 3", "budget.tokens: 3 is less than the 2,048 of one step."),
        ("steps = 5", "flops = 1e6", "budget.flops: 1e+06 is less than the "),
        ("steps = 5", "flops = inf", "budget.flops: inf is no budget."),
        ("seeds = 2", "seeds = 0", "seeds: Expected `int` >= 1"),
        ("seeds = 2", "seeds = []", "seeds: Expected `array` of length >= 1"),
        ("seeds = 2", "seeds = [1, 1]", "seeds: 1 is there twice."),
        ("seeds = 2", 'baseline = "hawl"', "baseline: there is no variant 'hawl'.\nDid you mean hawk?"),
        ("[1e-3, 3e-3]", "[-1e-3]", "learning_rates[0]: Expected `float` > 0.0"),
        ("[1e-3, 3e-3]", "[1e-3, 1.0000001e-3]", "learning_rates: two are 0.001 to six digits"),
        ("[1e-3, 3e-3]", "[inf]", "learning_rates: inf is no learning rate."),
        ("variants.hawk", 'variants."../hawk"', "variants.../hawk: '../hawk' cannot be a folder's name."),
        ("variants.hawk", "variants.Griffin", "variants.griffin: two are called so but for upper and lower case"),
        ("seeds = 2", 'name = "a/b"', "name: 'a/b' cannot be a folder's name."),
        ("rg_lru@3", "rg_lru@@3", "variants.hawk.pattern: "),
        ("rg_lru@3", "rglru@3", "variants.hawk.pattern: there is no block named 'rglru'.\n  rglru@3\n  ^^^^^\nDid you"),
        ("rg_lru@3", "rg_lru[d=1]@3", "variants.hawk.pattern: rg_lru: d: there is no such option; "),
        ("tasks.text", "tasks.txet", "tasks.txet: there is no task named 'txet'"),
        ("[tasks.text]", '[tasks.text]\ntask = "text[a=1]"', "tasks.text.task: "),
        ("[tasks.text]", "[tasks.text.config.train]\nseed = 3", "tasks.text.config: train.seed cannot be overridden: "),
        ("[tasks.text]", "[tasks.text.config.model]\nwidht = 3", "tasks.text.config.model: Object contains unknown"),
        ("[tasks.text]", "[tasks.text.config.model]\nwidth = 0", "tasks.text.config.model.width: Expected `int` >= 1"),
        ("[tasks.text]", "[tasks.text.config.train]\nsteps = 9", "tasks.text.config: train.steps and a budget are"),
        ("[tasks.text]", "[tasks.text.config.model.blocks.rgl]\nc = 1", "tasks.text.config.model.blocks.rgl: "),
        ("seeds = 2", 'base = "hawk-tniy"', "base: there is no preset 'hawk-tniy'.\nDid you mean hawk-tiny?"),
        ("seeds = 2", 'base = "none.toml"', "base: "),
        ("[tasks.text]", "[match]\nby = \"params\"\ntolerance = 0.0001\nadjust = \"width\"\n[tasks.text]",
         "variants.griffin: on task text: cannot be matched to hawk in non-embedding parameters ("),
        ("[tasks.text]", "[match]\nby = \"size\"\n[tasks.text]", "match.by: Invalid enum value 'size'"),
        ("local_mqa", "local_mqa[head_dim=100]", "variants.griffin: on task text: head_dim: 100 does not divide "),
    ],
)  # fmt: skip
def test_a_mistake_is_one_error_with_its_file_table_and_key(tmp_path, old, new, message):
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(PlanError) as caught:
        work_out(load_plan(path), where=str(path))
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_plan_without_variants_or_tasks_says_so():
    with pytest.raises(PlanError) as caught:
        work_out(from_tree({"variants": {}, "tasks": {}}))
    assert caught.value.problems == (
        "plan without a name: variants: there is none.\nName at least one, as [variants.NAME].",
        "plan without a name: tasks: there is none.\nName at least one, as [tasks.NAME].",
    )


def test_all_mistakes_of_a_kind_are_told_at_once():
    tree = msgspec.to_builtins(loads(GOOD))
    tree["variants"]["hawk"]["pattern"] = "rg_lruu"
    tree["variants"]["griffin"]["config"] = {"model": {"width": -1}}
    with pytest.raises(PlanError) as caught:
        work_out(from_tree(tree))
    assert [problem.split(":")[1] for problem in caught.value.problems] == [
        " variants.hawk.pattern",
        " variants.griffin.config.model.width",
    ]
