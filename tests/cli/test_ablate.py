"""`griffin ablate` reads a plan from a file or from options; a dry run tells all and starts nothing."""

import pytest

from griffin_eqx.ablation.folder import keep_plan
from griffin_eqx.ablation.load import dumps, load_plan, loads
from griffin_eqx.ablation.plan import Match, TaskPlan, Variant
from griffin_eqx.cli import ablate_dry_run
from griffin_eqx.cli.ablate import read
from griffin_eqx.errors import PlanError

SMALL = ("--patterns", "rg_lru@2", "(R L)@2", "--task", "text")


@pytest.fixture(autouse=True)
def no_measuring(monkeypatch):
    monkeypatch.setattr(ablate_dry_run, "_flops_per_second", lambda: 1e11)


def test_options_say_what_a_plan_says():
    words = (
        "--match params --adjust mlp_width --seeds 2 --steps 5 --learning-rates 1e-3 2e-3 --model.width 128"
    )
    plan, where, _ = read(
        [*SMALL, *words.split(), "--model.blocks.R.gate-blocks", "8", "--baseline", "(R L)@2"]
    )
    assert where == "command line"
    assert plan.variants == {"rg_lru-2": Variant(pattern="rg_lru@2"), "R-L-2": Variant(pattern="(R L)@2")}
    assert plan.baseline == "R-L-2"
    assert plan.tasks == {"text": TaskPlan()}
    assert plan.match == Match(by="params", adjust="mlp_width")
    assert (plan.seeds, plan.learning_rates, plan.budget.steps) == (2, [1e-3, 2e-3], 5)
    assert plan.config == {"model": {"width": 128, "blocks": {"R": {"gate_blocks": 8}}}}
    assert loads(dumps(plan)) == plan


def test_the_folder_stays_when_seeds_are_added_and_changes_with_the_model():
    name = read([*SMALL])[0].name
    assert read([*SMALL, "--seeds", "9"])[0].name == name
    assert read([*SMALL, "--model.biases"])[0].name != name
    assert read([*SMALL, "--name", "mine"])[0].name == "mine"


def test_a_preset_among_the_patterns_is_its_model():
    plan, _, _ = read(["--patterns", "hawk-tiny", "mqa-100m", "--task", "text"])
    assert plan.variants["mqa-100m"].config["model"]["width"] == 768


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "command line: --patterns and --task are missing."),
        (["--patterns", "R@2"], "command line: --task is missing."),
        ([*SMALL, "--seeds", "0"], "command line: seeds: Expected `int` >= 1"),
        (
            [*SMALL, "--steps", "2", "--minutes", "1"],
            "command line: budget: both steps and minutes are given.",
        ),
        ([*SMALL, "--base", "none.toml"], "command line: --base: none.toml: cannot be read."),
        ([*SMALL, "--adjust", "width"], "command line: --adjust width needs --match."),
        ([*SMALL, "--baseline", "C"], "command line: baseline: there is no variant 'C'."),
        ([*SMALL, "--name", "a/b"], "command line: name: 'a/b' cannot be a folder's name."),
        (
            [*SMALL, "--model.lru-width", "None"],
            "command line: config: model.lru_width cannot be None in a plan",
        ),
        (["--patterns", "R@2", "R@2", "--task", "text"], "command line: --patterns: R@2 is there twice."),
        (["--patterns", "R@", "--task", "text"], "command line: variants.R.pattern: "),
        (["plan"], "plan: a plan is a file whose name ends in .toml."),
        (["none.toml"], "none.toml: cannot be read."),
        (["none.toml", "--seeds", "2"], "command line: --seeds and the plan none.toml are given."),
        (
            ["none.toml", "--name", "a", "--folder", "b"],
            "command line: both --name a and --folder b are given.",
        ),
        (["."], ".: this is no folder of an ablation: it has no plan.toml."),
    ],
)
def test_a_mistake_is_one_error_before_anything_runs(griffin, argv, message):
    code, out, err = griffin("ablate", *argv)
    assert (code, out) == (2, "")
    assert err.startswith(f"griffin: {message}")


def test_a_dry_run_shows_every_variant_and_starts_nothing(griffin, tmp_path):
    code, out, err = griffin(
        *(
            "ablate",
            *SMALL,
            "--match",
            "params",
            "--adjust",
            "width",
            "--tokens",
            "1e5",
            "--name",
            "x",
            "--dry-run",
        ),
        *("--model.blocks.local_mqa.head_dim", "64", "--learning-rates", "1e-3", "2e-3"),
    )
    assert (code, err) == (0, "")
    assert "rg_lru-2 (baseline)  rg_lru*2" in out
    assert "R-L-2: the next width up, 320, is " in out
    assert "8 runs; seeds 0, 1, 2; learning rates 0.001, 0.002 (the first seed tries all)" in out
    assert "results: runs/x" in out
    assert list(tmp_path.iterdir()) == []


def test_a_kept_plan_is_the_same_again_wherever_its_base_was(griffin, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "small.toml").write_text("[model]\nwidth = 128")
    path = tmp_path / "there" / "mine.toml"
    path.write_text('base = "small.toml"\n[variants.a]\npattern = "rg_lru@2"\n[tasks.text]\n')
    plan = load_plan(path)
    keep_plan(tmp_path, plan)
    (tmp_path / "there" / "small.toml").unlink()
    again, _, chosen = read([str(tmp_path)])
    assert (again.name, again.variants, again.base) == ("mine", plan.variants, str(tmp_path / "base.toml"))
    assert chosen.plan == str(tmp_path)
    assert "results: " + str(tmp_path) in griffin("ablate", str(tmp_path), "--dry-run").out
    with pytest.raises(PlanError, match="cannot be read"):
        load_plan(path)
