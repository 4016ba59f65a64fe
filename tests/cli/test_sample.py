"""`griffin sample` writes text, the same for the same seed, and lets no model steer the terminal."""

import json
import sys
import types

import jax
import pytest

import griffin_eqx as gx
from griffin_eqx.cli.sample import printable
from griffin_eqx.config import ModelConfig
from griffin_eqx.data import ByteTokenizer
from griffin_eqx.model import LanguageModel

pytestmark = pytest.mark.core


@pytest.fixture
def run(monkeypatch):
    """A run whose model is fresh."""
    config = ModelConfig(
        pattern="local_mqa[head_dim=8,window_size=4]", width=16, mlp_width=16, vocab_size=257
    )
    model = jax.jit(lambda: LanguageModel.init(config, key=jax.random.key(0)))()
    loaded = types.SimpleNamespace(model=model, tokenizer=ByteTokenizer(), config=gx.Config(), step=0)
    asked = []

    def load(run_dir):
        asked.append(str(run_dir))
        return loaded

    monkeypatch.setitem(sys.modules, "griffin_eqx.training.load", types.SimpleNamespace(load=load))
    return asked


def test_the_newest_run_is_taken_and_the_prompt_stands_before_its_continuation(griffin, run):
    code, out, err = griffin("sample", "--prompt", "To be", "--max-new-tokens", "16")
    assert (code, err, run) == (0, "", ["latest"])
    assert out.startswith("To be")


def test_a_seed_repeats_and_texts_differ(griffin, run):
    argv = ["sample", "runs/mine", "--num", "2", "--max-new-tokens", "16", "--json", "--seed", "7"]
    first = griffin(*argv)
    assert griffin(*argv) == first
    rows = [json.loads(line) for line in first.out.splitlines()]
    assert [row["seed"] for row in rows] == [7, 8]
    assert rows[0]["tokens"] != rows[1]["tokens"]
    assert rows[0]["text"] == ByteTokenizer().decode(rows[0]["tokens"])
    assert run == ["runs/mine"] * 2


def test_temperature_zero_writes_what_is_likeliest(griffin, run):
    rows = [
        json.loads(line)
        for line in griffin(
            "sample", "--num", "2", "--max-new-tokens", "16", "--temperature", "0", "--json"
        ).out.splitlines()
    ]
    assert rows[0]["tokens"] == rows[1]["tokens"]


def test_what_a_model_writes_cannot_steer_the_terminal():
    assert printable("a\n\tb\x1b[2Jc\x9b\u202ed\r") == "a\n\tb\ufffd[2Jc\ufffd\ufffdd\ufffd"
