"""What an ablation's folder keeps: the plan may grow, but no run that has begun may become another."""

import importlib.metadata
from pathlib import Path

import msgspec
import pytest

from griffin_eqx import tasks
from griffin_eqx.ablation import ablate, machine
from griffin_eqx.ablation import folder as disk
from griffin_eqx.ablation.design import possible_runs
from griffin_eqx.ablation.load import load_plan
from griffin_eqx.ablation.plan import Plan, TaskPlan, Variant
from griffin_eqx.config import dumps
from griffin_eqx.errors import RunError
from griffin_eqx.plugin_file import add_plugin

from .designs import make_cell, make_design

pytestmark = pytest.mark.core

TOY_TASK = """
import griffin_plugins.tasks.induction_heads

class Toy(griffin_plugins.tasks.induction_heads.InductionHeadsTask):
    name = "toy_recall"
    aliases = ()
"""


def begin(folder, design):
    run = next(possible_runs(design, design.cells[0]))
    (folder / run.path).mkdir(parents=True)
    (folder / run.path / "config.toml").write_text(dumps(run.config))


def test_a_design_may_grow_but_not_change_what_has_begun(tmp_path):
    cell = make_cell("a", "copy")
    disk.take_design(tmp_path, make_design([cell]))
    longer = make_cell("a", "copy", steps=11)
    disk.take_design(tmp_path, make_design([longer]))  # nothing has begun
    begin(tmp_path, make_design([longer]))
    grown = make_design(
        [make_cell("a", "copy", steps=11, learning_rates=(1e-3, 1e-2)), make_cell("b", "copy")], seeds=(0, 1)
    )
    disk.take_design(tmp_path, grown)
    for other in (make_design([cell]), make_design([longer], init_seeds={"a": 5})):
        before = (tmp_path / "design.json").read_bytes()
        with pytest.raises(
            RunError, match="Runs of 'a' on 'copy' have begun with another configuration"
        ) as error:
            disk.take_design(tmp_path, other)
        assert "train.steps: 11 there, 10 asked for" in str(error.value) or "train.init_seed" in str(
            error.value
        )
        assert (tmp_path / "design.json").read_bytes() == before


def test_threads_are_those_it_began_with(tmp_path):
    assert disk.threads_of(tmp_path) is None
    assert disk.settle_threads(tmp_path, None, 2) == 2
    assert disk.settle_threads(tmp_path, None, 1) == 2
    assert disk.settle_threads(tmp_path, 2, 1) == 2
    with pytest.raises(RunError, match="have 2 threads each, and threads=1 is asked for"):
        disk.settle_threads(tmp_path, 1, 1)
    (tmp_path / "workers.json").write_text("{")
    with pytest.raises(RunError, match=r"workers\.json cannot be read"):
        disk.threads_of(tmp_path)


def test_a_plan_is_kept_with_its_base(tmp_path):
    (tmp_path / "mine.toml").write_text("[train]\nsteps = 7\n")
    base = str(tmp_path / "mine.toml")
    plan = Plan(name="p", base=base, variants={"a": Variant(pattern="rg_lru")}, tasks={"text": TaskPlan()})
    folder = tmp_path / "folder"
    folder.mkdir()
    disk.keep_plan(folder, plan)
    assert (folder / "base.toml").read_text() == "[train]\nsteps = 7\n"
    assert load_plan(folder / "plan.toml") == msgspec.structs.replace(plan, base=str(folder / "base.toml"))


def test_workers_and_threads_share_the_cores(monkeypatch):
    monkeypatch.setattr(machine, "usable_cores", lambda: 8)
    monkeypatch.setattr(machine, "accelerated", lambda: False)
    assert machine.usual() == (8, 1)
    assert machine.usual(workers=2) == (2, 4)
    assert machine.usual(threads=3) == (2, 3)
    assert machine.usual(workers=20) == (20, 1)
    monkeypatch.setattr(machine, "accelerated", lambda: True)
    assert machine.usual() == (1, 8)
    assert machine.usual(workers=2) == (2, 4)


def test_an_accelerator_needs_a_device_and_what_drives_it(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: ["cuda"])
    monkeypatch.setattr(machine, "_DEVICES", ("/dev/null",))
    assert machine.accelerated()
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert not machine.accelerated()
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(machine, "_DEVICES", ("/dev/there is none",))
    assert not machine.accelerated()


def test_plugins_reach_workers_as_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks.default, "_added", {})
    file = tmp_path / "toy.py"
    file.write_text(TOY_TASK)
    added = add_plugin(file).tasks
    assert ablate.plugin_files() == [file]
    assert ablate.again(Path("runs/x")) == f"griffin ablate runs/x --plugin {file}"
    # A class that stands in no file of its own cannot be handed on.
    monkeypatch.setattr(added[0], "__module__", "nowhere")
    with pytest.raises(RunError, match="The task 'toy_recall' was added to this process alone"):
        ablate.plugin_files()
