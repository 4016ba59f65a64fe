"""A plan's folder is read whole: every planned run with its status, and damage with its place."""

import json

import pytest

from griffin_eqx.ablation.analysis import analyse
from griffin_eqx.ablation.results import ResultsError, read_results
from griffin_eqx.task import Metric
from tests.ablation.folders import ACCURACY, FOUR, TEXT, Made, lay_out

pytestmark = pytest.mark.core

RECALL: dict[str, tuple] = {"recall": (ACCURACY, "accuracy")}
TWO = {name: FOUR[name] for name in ("hawk", "mqa")}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "plan"


def there(value):
    """The value, which is not None."""
    assert value is not None
    return value


def _rows(folder):
    (task,) = analyse(read_results(folder)).tasks
    return {row.variant: row for row in task.rows}


def test_every_planned_run_is_there(folder):
    lay_out(folder, variants=TWO)
    runs = read_results(folder).runs
    # Two variants on two tasks: three rates with the first seed, the best rate with two more.
    assert len(runs) == 2 * 2 * (3 + 2)
    assert {run.status for run in runs} == {"finished"}
    assert all(run.outcome and run.curve and run.environment["python"] for run in runs)
    assert [run.path.parts[:3] for run in runs[:1]] == [("runs", "hawk", "induction")]


def test_runs_that_did_not_finish_are_listed_and_not_counted(folder):
    lost = [("hawk", "recall", 3e-3, seed) for seed in (1, 2)] + [("mqa", "recall", 3e-3, 2)]
    lay_out(
        folder,
        variants=TWO,
        tasks=RECALL,
        failed={lost[0]: "loss was not finite at step 90"},
        unfinished=(lost[1],),
        missing=(lost[2],),
    )
    runs = {(run.variant, run.task, run.learning_rate, run.seed): run for run in read_results(folder).runs}
    assert [runs[key].status for key in lost] == ["failed", "unfinished", "missing"]
    assert there(runs[lost[0]].failure).reason == "loss was not finite at step 90"
    assert runs[lost[1]].step == 200
    rows = _rows(folder)
    assert there(rows["hawk"].score).values.keys() == {0}
    assert rows["hawk"].lost == {1: "diverged", 2: "unfinished"}
    assert rows["mqa"].lost == {2: "not started"}
    assert there(rows["mqa"].difference).values.keys() == {0}


def test_a_run_of_another_configuration_is_listed_and_not_counted(folder):
    lay_out(folder, variants=TWO, tasks=RECALL)
    config = folder / "runs/hawk/recall/lr0.003/seed1/config.toml"
    config.write_text(config.read_text().replace("steps = 400", "steps = 300"))
    (folder / "runs/old/recall/lr0.1/seed7").mkdir(parents=True)
    (folder / "runs/old/recall/lr0.1/seed7/config.toml").write_text("")
    foreign = {str(run.path): run.note for run in read_results(folder).runs if run.status == "foreign"}
    assert foreign == {
        "runs/hawk/recall/lr0.003/seed1": "train.steps is 300 there and 400 in the design",
        "runs/old/recall/lr0.1/seed7": "not in the design",
    }
    assert there(_rows(folder)["hawk"].score).values.keys() == {0, 2}


RUN = "runs/hawk/recall/lr0.003/seed1"


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("design.json", 3, "design.json, line 3: cannot be read: JSON is malformed"),
        (f"{RUN}/outcome.jsonl", 2, f"{RUN}/outcome.jsonl, line 2: cannot be read"),
        (f"{RUN}/metrics.jsonl", 7, f"{RUN}/metrics.jsonl, line 7: cannot be read"),
        (f"{RUN}/env.json", 1, f"{RUN}/env.json, line 1: cannot be read"),
        (f"{RUN}/config.toml", 1, f"{RUN}/config.toml is not TOML"),
    ],
)
def test_damage_is_told_with_file_and_line(folder, name, line, message):
    lay_out(folder, variants=TWO, tasks=RECALL)
    lines = (folder / name).read_bytes().split(b"\n")
    lines[line - 1] = b"\x00" + lines[line - 1]
    (folder / name).write_bytes(b"\n".join(lines))
    with pytest.raises(ResultsError) as error:
        read_results(folder)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) >= 2


def test_a_wrong_value_is_told_with_its_place(folder):
    lay_out(folder, variants=TWO, tasks=RECALL)
    path = folder / RUN / "outcome.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1].replace('"rows":256', '"rows":"many"'), *lines[2:]]))
    with pytest.raises(
        ResultsError, match=r"outcome.jsonl, line 2: .* Expected `int`, got `str` - at `\$.rows`"
    ):
        read_results(folder)
    path.write_text("\n".join(lines[:-1]))
    with pytest.raises(ResultsError, match="it does not end with the one line of the run"):
        read_results(folder)


def test_half_a_line_of_metrics_is_one_that_was_being_written(folder):
    lay_out(folder, variants=TWO, tasks=RECALL)
    path = folder / RUN / "metrics.jsonl"
    whole = len(path.read_bytes().splitlines())
    path.write_bytes(path.read_bytes()[:-5])
    run = next(run for run in read_results(folder).runs if str(run.path) == RUN)
    assert len(run.curve) == whole - 1


def test_a_folder_without_a_design_is_refused(tmp_path):
    with pytest.raises(ResultsError, match=r"it has no design\.json") as error:
        read_results(tmp_path / "none")
    assert error.value.exit_code == 3


def test_the_learning_rate_is_chosen_on_validation_and_an_edge_is_flagged(folder):
    lay_out(folder, variants=TWO, tasks=RECALL, best=1e-2, noise=0.001)
    rows = _rows(folder)
    assert [(row.learning_rate, row.edge) for row in rows.values()] == [(1e-2, "highest")] * 2
    assert [trial.chosen for trial in rows["hawk"].trials] == [False, False, True]
    # The test split has no say.
    path = folder / "runs/hawk/recall/lr0.001/seed0/outcome.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if line.get("split") == "test":
            line["accuracy"] = 1.0
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert _rows(folder)["hawk"].learning_rate == 1e-2


def test_a_rate_that_failed_is_not_chosen_and_the_seeds_of_others_do_not_choose(folder):
    lay_out(folder, variants=TWO, tasks=RECALL, failed={("hawk", "recall", 3e-3, 0): "diverged"})
    hawk = _rows(folder)["hawk"]
    assert hawk.learning_rate in (1e-3, 1e-2)
    assert [trial.failed for trial in hawk.trials] == [0, 1, 0]
    assert hawk.lost == {1: "not started", 2: "not started"}


@pytest.mark.parametrize(
    ("task", "metric"), [(ACCURACY, "accuracy"), (TEXT, "bits_per_byte"), (TEXT, "loss")]
)
def test_variants_are_ranked_and_paired(folder, task, metric: Metric):
    made = {"weak": Made("rg_lru@2", 0.5), "strong": Made("rg_lru@3", 0.9), "second": Made("rg_lru@4", 0.899)}
    lay_out(folder, variants=made, tasks={"recall": (task, metric)}, noise=0.002)
    rows = _rows(folder)
    assert {rows["strong"].rank, rows["second"].rank} == {1, 2}
    assert rows["weak"].rank == 3
    assert rows["weak"].difference is None
    assert not rows["weak"].tied
    tied = next(row for row in rows.values() if row.rank == 2)
    assert tied.tied
    better = there(rows["strong"].difference)
    assert (better.mean > 0) == (metric == "accuracy")
    assert rows["strong"].different
    assert better.values == {
        seed: there(rows["strong"].score).values[seed] - there(rows["weak"].score).values[seed]
        for seed in range(3)
    }


def test_one_variant_under_two_names_is_told(folder):
    made = {
        "hawk": FOUR["hawk"],
        "hawk again": Made(**{**vars(FOUR["hawk"]), "init_seed": 1000}),
        "mqa": FOUR["mqa"],
    }
    lay_out(folder, variants=made, tasks=RECALL)
    (task,) = analyse(read_results(folder)).tasks
    (null,) = task.nulls
    assert (null.first, null.second, null.independent) == ("hawk", "hawk again", True)
    assert there(null.difference).n == 3


def test_all_failed_leaves_every_variant_listed_without_a_number(folder):
    failed = {(name, "recall", rate, 0): "no memory" for name in TWO for rate in (1e-3, 3e-3, 1e-2)}
    lay_out(folder, variants=TWO, tasks=RECALL, seeds=(0,), failed=failed)
    rows = _rows(folder)
    assert [(row.rank, row.score, row.learning_rate) for row in rows.values()] == [(None, None, None)] * 2


def test_a_loss_that_is_not_finite_is_no_number_but_is_told(folder):
    lay_out(
        folder,
        variants=TWO,
        tasks={"text": (TEXT, "bits_per_byte")},
        not_finite=(("mqa", "text", 3e-3, 1),),
    )
    mqa = _rows(folder)["mqa"]
    assert there(mqa.score).n == 2
    assert mqa.lost == {1: "not finite"}
