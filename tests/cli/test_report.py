"""`griffin report` rebuilds a plan's report and shows its answer."""

import webbrowser
from pathlib import Path

import pytest

from griffin_eqx.ablation import report
from tests.ablation.folders import ACCURACY, lay_out


@pytest.fixture
def plan(tmp_path):
    lay_out(tmp_path / "runs" / "plan", tasks={"recall": (ACCURACY, "accuracy")})
    return tmp_path / "runs" / "plan"


def test_the_answer_is_shown_and_the_files_are_named(griffin, plan, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    code, out, err = griffin("report", "runs/plan", "--figures", "figures", "--open")
    assert (code, err) == (0, "")
    assert "4 variants, 1 task, 3 seeds, 20 runs, all finished" in out
    assert "is first with" in out
    for name in ("report.html", "report.md", "report.csv", "index.sqlite"):
        assert f"runs/plan/{name}" in out
        assert (plan / name).exists()
    assert "figures/recall-answer.svg" in out
    assert Path("figures/recall-answer.svg").exists()
    assert opened == [(plan / "report.html").as_uri()]
    assert "griffin ablate runs/plan/plan.toml --folder runs/again" in (plan / "report.md").read_text()


def test_without_the_extra_the_table_is_shown_with_what_to_install(griffin, plan, monkeypatch):
    monkeypatch.setattr(report.importlib.util, "find_spec", lambda name: None)
    code, out, _ = griffin("report", "runs/plan")
    assert code == 0
    assert "is first with" in out
    assert "Install: pip install 'griffin_eqx[report]'." in out
    code, out, err = griffin("report", "runs/plan", "--open")
    assert (code, out) == (2, "")
    assert "--open needs what is missing: matplotlib and jinja2 are not installed." in err


def test_a_folder_that_is_none_is_refused(griffin):
    code, _, err = griffin("report", "runs/none")
    assert code == 3
    assert err.startswith("griffin: This is no folder of an ablation: it has no design.json.\n  runs/none\n")
