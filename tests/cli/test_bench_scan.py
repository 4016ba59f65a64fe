"""`griffin bench scan` times what runs here, and says what does not and why."""

import importlib.util
import json

import pytest
from griffin_kernels.linear_scan import IMPLEMENTATIONS
from griffin_kernels.linear_scan.implementations import BACKWARD, FORWARD
from griffin_kernels.operation import Implementation

pytestmark = pytest.mark.core

SMALL = ("bench", "scan", "--shape", "2,7,3", "--rounds", "3", "--implementation", "xla")


def measured(griffin, *options) -> dict:
    code, out, err = griffin(*SMALL, *options, "--json")
    assert (code, err) == (0, "")
    (result,) = json.loads(out)
    return result


def test_the_figures_belong_together(griffin):
    result = measured(griffin)
    assert (result["shape"], result["dtype"], result["rounds"]) == ([2, 7, 3], "float32", 3)
    assert (result["forward_bytes"], result["gradient_bytes"]) == (3 * 42 * 4, 8 * 42 * 4)
    (backend,) = result["backends"]
    for timing in (backend["forward"], backend["gradient"], result["copy_forward"], result["copy_gradient"]):
        assert 0 < timing["best_seconds"] <= timing["median_seconds"] <= timing["worst_seconds"]
        assert timing["compile_seconds"] > 0
    assert result["copy_forward"]["times_copy"] == result["copy_gradient"]["times_copy"] == 1
    assert backend["forward"]["best_times_copy"] == pytest.approx(
        backend["forward"]["best_seconds"] / result["copy_forward"]["best_seconds"]
    )


def test_the_default_is_what_linear_scan_chooses(griffin):
    result = measured(griffin, "--implementation", "reference", "--complex", "--reset", "--dtype", "bfloat16")
    assert (result["complex"], result["reset"], result["forward_bytes"]) == (True, True, 3 * 2 * 42 * 2)
    assert {b["name"]: b["default"] for b in result["backends"]} == {"xla": True, "reference": False}
    assert (result["choice"], result["why"]) == ("xla", "the first choice on cpu")
    assert "xla is bound" in result["bound"]


@pytest.fixture
def more_implementations(monkeypatch):
    """One for another platform, and one that refuses."""
    elsewhere = Implementation(lambda *arguments, **options: None, platforms=("tpu", "cuda"))
    choosy = Implementation(
        lambda *arguments, **options: None, refuses=lambda *arguments, **options: "an odd length"
    )
    for operation in (FORWARD, BACKWARD):
        new = {"elsewhere": elsewhere, "choosy": choosy, "xla": operation.implementations["xla"]}
        monkeypatch.setattr(operation, "implementations", new)


@pytest.mark.usefixtures("more_implementations")
def test_what_cannot_run_here_is_listed_with_the_reason(griffin):
    answer = griffin("bench", "scan", "--shape", "2,7,3", "--rounds", "1")
    assert answer.code == 0
    assert "not timed: elsewhere: runs on tpu and cuda, and this is cpu" in answer.out
    assert "not timed: choosy: refuses: an odd length" in answer.out
    assert "xla (default)" in answer.out
    assert "Next: griffin " in answer.out


@pytest.mark.usefixtures("more_implementations")
def test_naming_one_that_cannot_run_here_is_an_error(griffin):
    answer = griffin("bench", "scan", "--implementation", "elsewhere")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        "griffin: --implementation elsewhere: runs on tpu and cuda, and this is cpu.\n"
        "Leave it out to time what runs here, or go to a machine that has one.\n"
    )


def test_the_plot_is_drawn(griffin, tmp_path):
    answer = griffin(*SMALL, "--shape", "1,5,2", "--plot", "scan.svg")
    assert (answer.code, answer.err) == (0, "")
    assert "Drawn: scan.svg" in answer.out
    assert "xla (default)" in (tmp_path / "scan.svg").read_text()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            ("--shape", "2,7"),
            "--shape 2,7: is not batch, tokens and channels.\n"
            "Write three numbers above 0, such as 2,2048,1024.",
        ),
        (("--rounds", "0"), "--rounds 0: must be at least 1.\nLeave it out for 15."),
        (
            ("--implementation", "asociative"),
            "--implementation asociative: linear_scan has none of that name.\n"
            f"Did you mean associative? Implementations: {', '.join(IMPLEMENTATIONS)}.",
        ),
        (
            ("--plot", "scan.gif"),
            "--plot scan.gif: cannot draw that format.\nEnd the name in .svg, .png or .pdf.",
        ),
        (
            ("--plot", "there/scan.svg"),
            "--plot there/scan.svg: there is no folder there.\nMake it, or name another.",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(griffin, monkeypatch, options, error):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: True if name == "matplotlib" else found(name)
    )
    assert griffin("bench", "scan", *options) == (2, "", f"griffin: {error}\n")


def test_a_plot_without_matplotlib_is_refused_before_anything_is_timed(griffin, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert griffin("bench", "scan", "--plot", "scan.svg") == (
        2,
        "",
        "griffin: --plot scan.svg: needs Matplotlib, which is not installed.\n"
        "Install it: pip install 'griffin_eqx[report]'.\n",
    )
