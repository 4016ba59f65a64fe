"""`griffin plan`: mistakes are answered before anything is compiled; a plan of virtual devices always runs."""

import json
import re
from pathlib import Path

import pytest

from griffin_eqx.aot import environment
from griffin_eqx.planning import plan as planning

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
README_BLOCK = next(
    text for text in re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S) if "my_block" in text
)
SMALL = (
    "rg_lru",
    "--model.width",
    "64",
    "--model.blocks.rg_lru.gate_blocks",
    "8",
    "--batch",
    "8",
    "--seq-len",
    "16",
)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--target: for which machine?"),
        (("--target", "v5"), "Did you mean v5"),
        (("--target", "v5p:4x4x7"), "Nearest to 112 chips: v5p:4x4x8 (128)."),
        (("--target", "cpu:0"), "Write cpu:8"),
        (("--target", "v5e:2x4"), "How are the 8 devices".lower()),
        (("--target", "v5e:2x4", "--mesh", "data=4"), "The mesh data=4 has 4 devices and v5e:2x4 has 8."),
        (("--target", "v5e:2x4", "--mesh", "data=4"), "Meshes of v5e:2x4 that work: data=4,"),
        (("--target", "v5e:4x4", "--mesh", "data=16"), "Take --batch 16."),
        (("--target", "v5e:4x4", "--mesh", "data=16"), "Meshes of v5e:4x4 that work: data=8,"),
        (("--target", "cpu:3", "--mesh", "model=3"), "over model=3"),
        (("--target", "v5e:2x4", "--mesh", "rows=8"), "There is no mesh axis 'rows'"),
        (("--target", "v5e:2x4", "--mesh", "data=8", "--batch", "0"), "--batch 0: must be at least 1"),
    ],
)
def test_a_mistake_is_answered_before_anything_is_compiled(griffin, monkeypatch, arguments, said):
    monkeypatch.setattr(planning, "Planner", None)
    code, out, err = griffin("plan", *SMALL, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert 2 <= len(err.splitlines()) <= 7


def test_without_the_compiler_three_lines_say_how_to_get_it(griffin, monkeypatch, tmp_path):
    monkeypatch.setenv(environment.OVERRIDE, str(tmp_path / "nothing"))
    monkeypatch.setattr(environment, "unsupported", lambda: None)
    code, _, err = griffin("plan", *SMALL, "--target", "v5e:2x4", "--mesh", "data=8")
    assert code == 2
    assert len(err.splitlines()) == 3
    assert "griffin plan --setup" in err


def test_a_block_of_ones_own_is_planned_for_virtual_devices(griffin):
    Path("leaky.py").write_text(README_BLOCK)
    target = ("--target", "cpu:4", "--mesh", "data=2,model=2")
    pattern = ("leaky", "--model.width", "64", "--batch", "4", "--seq-len", "16")
    code, out, err = griffin("--plugin", "leaky.py", "plan", *pattern, *target, "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert answer["fits"] is None
    assert answer["mesh"] == [2, 1, 2]
    assert [layer["kind"] for layer in answer["layers"]] == ["leaky"]
    assert all(layer["error"] is None for layer in answer["layers"])
    assert {tuple(one["axes"]) for one in answer["reading"]["collectives"]} >= {("data",)}
    assert sum(answer["bytes_by_kind"].values()) == answer["needed_bytes"]


def test_the_meshes_of_two_virtual_devices(griffin):
    code, out, err = griffin("plan", *SMALL, "--target", "cpu:2", "--search", "--json")
    assert code == 0, err
    answers = json.loads(out)
    assert sorted(answer["mesh"] for answer in answers) == [[1, 1, 2], [1, 2, 1], [2, 1, 1]]
    needed = [answer["needed_bytes"] for answer in answers]
    assert needed == sorted(needed)
