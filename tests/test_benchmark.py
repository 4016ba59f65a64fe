"""`griffin bench step` reports what it measured."""

import json

import jax
import pytest

from griffin_eqx.cli import main

SMALL = ["--model.width", "16", "--model.lru_width", "16", "--data.batch_size", "2", "--data.seq_len", "16"]


@pytest.fixture(autouse=True)
def usual_promotion():
    """As users have it: Optax's schedules divide floats by integers, which strict promotion refuses."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def _measure(capsys, pattern):
    blocks = ["--model.blocks.local_mqa.head_dim", "8", "--model.blocks.rg_lru.gate_blocks", "2"]
    assert main(["bench", "step", pattern, *SMALL, *blocks, "--repeats", "1", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_figures_belong_together(capsys):
    figures = _measure(capsys, "(rg_lru rg_lru local_mqa)@3")
    for part in (figures, figures["train"], figures["forward"]):
        assert part["compile_seconds"] > 0
        assert part["tokens_per_second"] == pytest.approx(32 / part["step_seconds"])
    ideal = 6 * figures["parameters"] * 32 / figures["matmul_flops_per_second"]
    assert figures["matmul_peak_fraction"] == pytest.approx(ideal / figures["step_seconds"])
    assert figures["peak_bytes"] > 50e6
    assert figures["pattern"] == "rg_lru*2 local_mqa"


def test_an_unknown_subject_is_a_usage_error(capsys):
    assert main(["bench", "stp"]) == 2
    assert "griffin bench step" in capsys.readouterr().err
