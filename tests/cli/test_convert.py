"""`griffin convert` carries a model round all formats, says what comes next, and refuses in three lines."""

import json

import jax
import msgspec
import pytest

import griffin_eqx as gx
from griffin_eqx.config import Config, ModelConfig
from griffin_eqx.interop import save
from griffin_eqx.model import LanguageModel
from griffin_eqx.pattern import Value
from griffin_eqx.training import naming

pytestmark = pytest.mark.core

BLOCKS: dict[str, dict[str, Value]] = {
    "rg_lru": {"gate_blocks": 2},
    "local_mqa": {"head_dim": 8, "window_size": 6, "rope_fraction": 0.5},
}
MODEL = ModelConfig(
    pattern="rg_lru local_mqa",
    width=16,
    vocab_size=257,
    embedding_scale=True,
    logit_soft_cap=30.0,
    blocks=BLOCKS,
)


@pytest.fixture
def weights(tmp_path):
    model = LanguageModel.init(MODEL, key=jax.random.key(0))
    return save(model, Config(model=MODEL), tmp_path / "weights")


def test_round_all_formats_and_back_the_weights_are_the_same(griffin, weights):
    source = "weights"
    for i, to in enumerate(("hf", "deepmind", "deepmind-torch", "griffin")):
        code, out, err = griffin("convert", source, str(i), "--to", to)
        assert (code, err) == (0, "")
        assert f"next: {'griffin sample 3' if to == 'griffin' else ''}" in out
        source = str(i)
    one, other = naming.flatten(gx.load(weights).model), naming.flatten(gx.load("3").model)
    assert {k: v.tobytes() for k, v in one.items()} == {k: v.tobytes() for k, v in other.items()}
    assert griffin("info", "3/config.toml").code == 0


def test_a_converted_folder_writes_text(griffin, weights):
    code, out, err = griffin("sample", "weights", "--prompt", "To be", "--max-new-tokens", "4", "--json")
    assert code == 0, err
    assert json.loads(out)["prompt"] == "To be"


def test_refusals_have_three_lines_and_leave_nothing(griffin, weights, tmp_path):
    before = sorted(path.name for path in tmp_path.iterdir())
    for argv, code, said in [
        (["weights", "weights", "--to", "hf"], 4, "nothing is overwritten unasked"),
        (["nowhere", "x", "--to", "hf"], 4, "There are no weights that can be read"),
        (["latest", "x", "--to", "hf"], 2, "There is no run yet"),
        (["weights", "x", "--to", "gguf"], 2, ""),
        (["weights", "x", "--to", "hf", "--like", "gpt"], 0, ""),
    ]:
        answer = griffin("convert", *argv)
        assert answer.code == code, answer
        assert said in answer.err
        if code == 4:
            assert len(answer.err.strip().splitlines()) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [*before, "x"]


def test_a_model_that_a_format_cannot_hold_is_refused_with_all_reasons(griffin, tmp_path):
    model = msgspec.structs.replace(MODEL, embedding_scale=False, logit_soft_cap=0.0)
    save(LanguageModel.init(model, key=jax.random.key(0)), Config(model=model), tmp_path / "plain")
    code, _, err = griffin("convert", "plain", "x", "--to", "hf")
    assert code == 4
    assert "embedding_scale=false has no place" in err
    assert "logit_soft_cap=0 has no place" in err
    assert griffin("convert", "plain", "x", "--to", "deepmind", "--quiet") == (0, "", "")
    assert griffin("convert", "plain", "x", "--to", "hf", "--overwrite").code == 4


def test_a_run_becomes_weights(griffin, tmp_path):
    (tmp_path / "text.txt").write_text("some text to learn from\n" * 400)
    pattern = "local_mqa[head_dim=8,window_size=4]"
    options = {
        "--model.width": 16,
        "--model.mlp_width": 16,
        "--data.corpus": "file:text.txt",
        "--data.seq_len": 16,
        "--data.batch_size": 2,
        "--train.steps": 2,
        "--name": "mine",
    }
    flat = [str(part) for pair in options.items() for part in pair]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert griffin("train", pattern, *flat, "--quiet").code == 0
    assert griffin("convert", "runs/mine", "ours", "--to", "griffin", "--which", "last").code == 0
    loaded, run = gx.load("ours"), gx.load("runs/mine", which="last")
    assert loaded.step == 2
    assert loaded.config == run.config
    one, other = naming.flatten(loaded.model), naming.flatten(run.model)
    assert {k: v.tobytes() for k, v in one.items()} == {k: v.tobytes() for k, v in other.items()}
