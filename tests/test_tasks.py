"""Tasks are found by name as blocks are, written as blocks are, and what is wrong with one is pointed at."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import griffin_eqx as gx
from griffin_eqx import registry, tasks
from griffin_eqx.config import DataConfig
from griffin_eqx.plugin_file import add_plugin

pytestmark = pytest.mark.core

DISTRIBUTIONS = Path(__file__).parent / "distributions"
FILE = DISTRIBUTIONS / "good/acme_blocks/first_token.py"


@pytest.fixture
def install(monkeypatch):
    """Puts distributions on the path, as pip would, for one test."""

    def put(*names: str) -> tasks.Tasks:
        for name in names:
            monkeypatch.syspath_prepend(str(DISTRIBUTIONS / name))
        tasks.refresh()
        return tasks.Tasks()

    yield put
    monkeypatch.undo()
    tasks.refresh()
    for module in [name for name in sys.modules if name.split(".")[0] in ("acme_blocks", "broken_blocks")]:
        del sys.modules[module]


@pytest.fixture
def added(monkeypatch):
    """Forgets what a test adds."""
    monkeypatch.setattr(tasks.default, "_added", {})
    monkeypatch.setattr(registry.default, "_added", {})


def error_of(call, *args) -> str:
    with pytest.raises(gx.GriffinError) as caught:
        call(*args)
    return str(caught.value)


# Finding


def test_the_built_in_tasks_come_through_the_entry_points():
    for entry in tasks.Tasks().entries():
        task = tasks.load(entry.name)
        assert {name.lower() for name in (task.name, *task.aliases)} == {entry.name, *entry.aliases}
        assert entry.distribution.split()[0] == "griffin_eqx"
        assert task.summary


def test_a_stranger_is_named_without_being_imported(install):
    install("good")
    assert tasks.resolve("F[vocab = 7]") == "first_token[vocab=7]"
    assert tasks.resolve("First-Token") == "first_token"
    assert "acme_blocks.first_token" not in sys.modules


def test_a_strangers_task_is_built_with_its_options(install):
    install("good")
    task = tasks.init("F[vocab=7]", DataConfig(seq_len=8, batch_size=3))
    assert task.vocab_size == 7
    assert task.train_batch(0, 5).tokens.shape == (3, 8)
    assert tasks.choose("F").options == tasks.load("F").Options()


def test_a_broken_task_breaks_only_runs_that_name_it(install):
    found = install("broken")
    assert found.resolve("text") == "text"
    assert error_of(tasks.choose, "wreckage") == (
        "task 'wreckage' of broken-blocks 0.1 cannot be imported from broken_blocks.wreck:WreckageTask.\n"
        "  wreckage\n"
        "  ^^^^^^^^\n"
        "RuntimeError: no such accelerator\n"
        "Mend or uninstall that distribution; other tasks work."
    )
    assert "is no task.\nSubclass griffin_eqx.AbstractTask." in error_of(tasks.load, "no_task")


def test_two_tasks_under_one_name_are_refused_and_both_owners_named(install):
    found = install("good", "rival")
    text = error_of(found.resolve, "first_token")
    assert "'first_token' is offered by acme-blocks 0.1 and by rival-blocks 0.1." in text


# What is wrong is pointed at


@pytest.mark.parametrize(
    ("text", "message", "carets"),
    [
        ("txt", "there is no task named 'txt'.", (0, 3)),
        (
            "F[vocb=3]",
            "first_token: vocb: there is no such option; did you mean vocab? it takes vocab",
            (2, 8),
        ),
        ("F[vocab=1.5]", "first_token: vocab: expected an integer, got 1.5", (2, 11)),
        ("F[vocab=2]", "first_token: vocab: must be at least 3, got 2", (2, 9)),
        ("F[vocab=9]", "first_token: vocab: needs rows of 4 tokens or more, got data.seq_len=3", (2, 9)),
        ("F", "first_token: vocab: needs rows of 4 tokens or more, got data.seq_len=3", (0, 1)),
        ("text[seq_len=3]", "text: seq_len: there is no such option; it takes none", (5, 14)),
        ("text text", "a run has one task: these are 2", (0, 9)),
        ("(text F)*3", "a run has one task: these are 6", (0, 10)),
        ("  ", "no task is named", (0, 2)),
        ("F[vocab", "'[' is never closed", (1, 2)),
    ],
)
def test_a_wrong_name_or_option_is_pointed_at(install, text, message, carets):
    install("good")
    lines = error_of(tasks.init, text, DataConfig(seq_len=3)).splitlines()
    assert lines[0] == message
    assert lines[2] == "  " + " " * carets[0] + "^" * (carets[1] - carets[0])


def test_an_unknown_task_is_met_by_the_nearest():
    assert "Did you mean 'text'? Known: " in error_of(tasks.resolve, "texts")


# At hand


def test_a_plugin_file_brings_tasks_and_blocks(added, tmp_path):
    both = tmp_path / "both.py"
    token_shift = DISTRIBUTIONS / "good/acme_blocks/token_shift.py"
    both.write_text(FILE.read_text() + token_shift.read_text())
    found = add_plugin(both)
    assert [block.name for block in found.blocks] == ["token_shift"]
    assert [task.name for task in found.tasks] == ["first_token"]
    assert tasks.resolve("f") == "first_token"
    assert str(registry.resolve("S")) == "token_shift"
    assert tasks.is_added(tasks.find("F"))


def test_a_file_without_either_says_so(added, tmp_path):
    (tmp_path / "none.py").write_text("from griffin_eqx import AbstractTask")
    assert "it defines no concrete block and no concrete task." in error_of(add_plugin, tmp_path / "none.py")
    assert "it defines no concrete task." in error_of(tasks.add_file, tmp_path / "none.py")


def make_task(**attributes: Any) -> Any:
    parent = tasks.load("text")
    return type("Mine", (parent,), {"name": "mine", "aliases": (), "__module__": __name__, **attributes})


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (lambda: int, "<class 'int'> is no task."),
        (lambda: type("Bare", (gx.AbstractTask,), {}), "Bare lacks name, Options, metric, eval_sets, init"),
        (lambda: make_task(Options=int), "Mine.Options is no dataclass."),
        (lambda: make_task(metric="speed"), "Mine.metric is 'speed'.\nMetrics are accuracy, exact,"),
        (
            lambda: make_task(name="text"),
            "the task name 'text' is offered by griffin_eqx 0.1.0 and by tasks.add of",
        ),
    ],
)
def test_a_class_that_breaks_the_form_of_the_contract_is_refused(added, task, message):
    assert error_of(tasks.add, task()).startswith(message)


def test_an_added_task_is_used_by_name_and_replaced_by_its_next_version(added):
    first = tasks.add(make_task())
    assert tasks.load("MINE") is first
    second = tasks.add(make_task())
    assert tasks.load("mine") is second


def test_naming_tasks_waits_for_no_library():
    code = (
        "import sys; from griffin_eqx import tasks; tasks.resolve('text'); tasks.entries();"
        "print([name for name in ('jax', 'equinox', 'numpy', 'grain') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
