"""`griffin tasks` lists what a model can be trained on, and what is wrong with it."""

import json
import sys
from pathlib import Path

import pytest

from griffin_eqx import tasks

pytestmark = pytest.mark.core

DISTRIBUTIONS = Path(__file__).parents[1] / "distributions"


def test_tasks_are_listed_with_where_they_come_from(griffin):
    code, out, _ = griffin("tasks", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert rows["text"]["target"] == "griffin_plugins.tasks.text:TextTask"
    assert all(name in griffin("tasks").out for name in rows)


def test_a_plugin_files_task_is_listed_and_checked(griffin, monkeypatch):
    monkeypatch.setattr(tasks.default, "_added", {})
    plugin = str(DISTRIBUTIONS / "good/acme_blocks/first_token.py")
    code, out, _ = griffin("tasks", "--check", "--json", "--plugin", plugin)
    row = next(row for row in json.loads(out) if row["name"] == "first_token")
    assert code == 0
    assert (row["metric"], row["options"]) == ("accuracy", {"vocab": 6})
    assert "say the first token of the row, twice" in griffin("tasks", "--check").out
    assert "judged by accuracy" in griffin("tasks", "--check").out


def test_check_fails_where_a_task_cannot_be_imported_and_lists_the_rest(griffin, monkeypatch):
    monkeypatch.syspath_prepend(str(DISTRIBUTIONS / "broken"))
    tasks.refresh()
    try:
        assert griffin("tasks").code == 0
        code, out, _ = griffin("tasks", "--check")
    finally:
        monkeypatch.undo()
        tasks.refresh()
        for module in [name for name in sys.modules if name.startswith("broken_blocks")]:
            del sys.modules[module]
    assert code == 1
    assert "RuntimeError: no such accelerator" in out
    assert "next token of a corpus" in out


def test_a_configuration_holds_the_tasks_canonical_name(griffin, monkeypatch):
    monkeypatch.setattr(tasks.default, "_added", {})
    plugin = str(DISTRIBUTIONS / "good/acme_blocks/first_token.py")
    code, out, err = griffin("train", "--plugin", plugin, "--data.task", "F[vocab=9]", "--print-config")
    assert code == 0, err
    assert 'task = "first_token[vocab=9]"' in out
    assert griffin("train", "--data.task", "texts").err.startswith("griffin: there is no task named 'texts'.")
