"""`griffin bench decode` and `griffin bench prefill` report what they measured, against limits of the same run."""

import importlib.util
import json

import pytest

from griffin_eqx.benchmark import bandwidth, step

SMALL = ("--model.width", "16", "--model.lru_width", "16", "--model.mlp_width", "16", "--rounds", "2")
BLOCKS = (
    "--model.blocks.local_mqa.head_dim",
    "8",
    "--model.blocks.global_mqa.head_dim",
    "8",
    "--model.blocks.rg_lru.gate_blocks",
    "2",
)


@pytest.fixture(autouse=True)
def _little(monkeypatch):
    monkeypatch.setattr(bandwidth, "STREAM_BYTES", 1)
    monkeypatch.setattr(step, "PEAK_SIZE", 64)


def decoded(griffin, *options) -> dict:
    sizes = ("--batches", "1", "3", "--prompt", "40", "--contexts", "24", "96", "--tokens", "4")
    code, out, _ = griffin(
        "bench", "decode", "rg_lru local_mqa[window_size=8]", *SMALL, *BLOCKS, *sizes, *options
    )
    assert code == 0
    return json.loads(out) if "--json" in options else {"out": out}


def test_the_figures_of_decoding_belong_together(griffin):
    result = decoded(griffin, "--json", "--against", "global_mqa", "rg_lru", "--memory-gb", "0.001")
    names = [model["name"] for model in result["models"]]
    assert names == ["rg_lru local_mqa[window_size=8]", "global_mqa", "rg_lru"]
    assert result["bytes_per_second"] > 0
    for model in result["models"]:
        assert [(p["batch"], p["context"]) for p in model["points"]] == [(1, 40), (3, 40), (1, 24), (1, 96)]
        assert model["first_token_seconds"] > 0
        for point in model["points"]:
            assert 0 < point["best_seconds"] <= point["step_seconds"]
            assert point["tokens_per_second"] == pytest.approx(point["batch"] / point["step_seconds"])
            moved = model["weight_bytes"] + point["cache_bytes"]
            ideal = moved / result["bytes_per_second"]
            assert point["limit_fraction"] == pytest.approx(ideal / point["step_seconds"])
    griffin_, mqa, hawk = result["models"]
    # Both keep what they keep; global attention keeps keys and values of 8 channels for every token.
    for flat in (griffin_, hawk):
        assert len({p["cache_bytes"] for p in flat["points"] if p["batch"] == 1}) == 1
    sizes = {p["context"]: p["cache_bytes"] for p in mqa["points"] if p["batch"] == 1}
    assert sizes[96] - sizes[24] == 72 * 2 * 8 * 4
    for model in result["models"]:
        for context, rows in model["largest_batch"].items():
            assert rows == (1_000_000 - model["weight_bytes"]) // _cache_of(model, int(context), sizes)


def _cache_of(model, context, growing):
    if model["name"] == "global_mqa":
        return growing[24] + (context - 28) * 2 * 8 * 4  # a point has room for its 4 new tokens as well
    return model["points"][0]["cache_bytes"]


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs the extra report")
def test_a_plot_and_a_table_come_of_it(griffin, tmp_path):
    out = decoded(griffin, "--plot", "latency.svg")["out"]
    assert "of the limit" in out
    assert "rg_lru" in (tmp_path / "latency.svg").read_text()


def test_the_figures_of_prefill_belong_together(griffin):
    code, out, _ = griffin(
        "bench",
        "prefill",
        "rg_lru",
        *SMALL,
        *BLOCKS,
        "--prompts",
        "5",
        "40",
        "--prefill-chunk",
        "16",
        "--json",
    )
    assert code == 0
    (model,) = json.loads(out)["models"]
    assert [point["prompt"] for point in model["points"]] == [5, 40]
    for point in model["points"]:
        assert 0 < point["best_seconds"] <= point["seconds"]
        assert point["tokens_per_second"] == pytest.approx(point["prompt"] / point["seconds"])
        assert point["first_token_seconds"] > 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("decode", "--batches", "0"), "--batches 0: must be above 0."),
        (("decode", "--memory-gb", "-1"), "--memory-gb -1.0: must be above 0."),
        (("prefill", "--prompts", "0"), "--prompts 0: must be above 0."),
        (("decode", "--plot", "a.bmp"), "--plot a.bmp: cannot draw that format."),
    ],
)
def test_what_cannot_be_measured_is_named(griffin, argv, message):
    code, _, err = griffin("bench", *argv)
    assert code == 2
    assert message in err
