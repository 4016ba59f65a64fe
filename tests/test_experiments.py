"""The plans under experiments/ are valid, matched, and named as their folder and its README say."""

from pathlib import Path

import pytest

from griffin_eqx.ablation.load import load_plan
from griffin_eqx.ablation.work_out import work_out

PLANS = [
    path
    for path in sorted((Path(__file__).parents[1] / "experiments").glob("*/plan.toml"))
    if (path.parent / "README.md").exists()
]


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.parent.name)
def test_a_plan_can_be_run_as_its_readme_says(path):
    design = work_out(load_plan(path))
    folder = path.parent
    assert all(abs(cell.matched.mismatch) < 0.01 for cell in design.cells if cell.matched)
    assert f"griffin ablate experiments/{folder.name}/plan.toml" in (folder / "README.md").read_text()
    assert design.plan.name == folder.name


def test_there_are_plans():
    assert len(PLANS) >= 7
