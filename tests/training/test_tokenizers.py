"""Runs with a tokenizer of their own: counted in bytes of text, and whole without the tokenizer's file."""

import json
import math
import shutil
from pathlib import Path

import pytest

from griffin_eqx.cli import main
from griffin_eqx.config import dumps
from griffin_eqx.data import open_tokenizer
from griffin_eqx.errors import RunError
from griffin_eqx.training.load import load
from griffin_eqx.training.loop import train
from griffin_eqx.training.metrics import read_metrics
from tests import tokenizer_files

pytestmark = pytest.mark.core


@pytest.fixture
def asked(tmp_path, make_config):
    """A configuration with a tokenizer in a folder that may go away."""
    (tmp_path / "elsewhere").mkdir()
    file = tokenizer_files.byte_level(tmp_path / "elsewhere")
    return make_config(
        pattern="rg_lru",
        vocab_size=None,
        tokenizer=f"file:{file}",
        steps=4,
        eval_tokens=0,
        checkpoint_every=2,
    )


def test_bits_are_over_the_bytes_of_the_text(tmp_path, asked, text_file):
    train(asked, run_dir=tmp_path / "run", quiet=True)
    (last,) = [
        line
        for line in read_metrics(tmp_path / "run" / "metrics.jsonl")
        if line["kind"] == "validation" and line["step"] == 4
    ]
    # Of the 5 % from 90 % on, up to line borders; no byte of it is missed but for what the first token stands for,
    # which is none.
    text = text_file.read_bytes()
    cuts = [text.index(b"\n", len(text) * percent // 100 - 1) + 1 for percent in (90, 95)]
    assert last["bytes"] == cuts[1] - cuts[0]
    assert last["targets"] < 0.8 * last["bytes"]
    assert last["bits_per_byte"] == pytest.approx(
        last["loss"] * last["targets"] / math.log(2) / last["bytes"]
    )


def test_a_run_is_whole_without_the_file(tmp_path, asked):
    train(asked, run_dir=tmp_path / "run", quiet=True, stop=lambda step: step == 2)
    original = open_tokenizer(asked.data.tokenizer)
    shutil.rmtree(tmp_path / "elsewhere")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    shutil.rmtree(tmp_path / "run")
    kept = load(tmp_path / "copy").tokenizer
    assert kept is not None
    assert kept.digest == original.digest
    result = train(asked, run_dir=tmp_path / "copy", quiet=True)
    assert (result.finished, result.step) == (True, 4)


def test_another_tokenizer_under_the_same_name_is_noticed(tmp_path, asked):
    train(asked, run_dir=tmp_path / "run", quiet=True, stop=lambda step: step == 1)
    file = Path(asked.data.tokenizer.removeprefix("file:"))
    tree = json.loads(file.read_text())
    tree["model"]["merges"].pop()
    file.write_text(json.dumps(tree))
    with pytest.raises(RunError, match="has changed since the run began") as caught:
        train(asked, run_dir=tmp_path / "run", quiet=True)
    assert len(str(caught.value).splitlines()) == 3


def test_a_run_from_before_there_were_tokenizers_goes_on(tmp_path, make_config):
    config = make_config(pattern="rg_lru", steps=2)
    train(config, run_dir=tmp_path / "run", quiet=True, stop=lambda step: step == 1)
    path = tmp_path / "run" / "config.toml"
    text = path.read_text()
    assert 'tokenizer = "bytes"\n' in text
    path.write_text(text.replace('tokenizer = "bytes"\n', ""))
    assert train(config, run_dir=tmp_path / "run", quiet=True).finished


def test_the_command_says_what_is_wrong_with_a_tokenizer(tmp_path, make_config, capsys):
    config = tmp_path / "config.toml"
    config.write_text(dumps(make_config(steps=1)))
    assert main(["train", str(config), "--data.tokenizer", "file:gone.model"]) == 3
    assert capsys.readouterr().err.splitlines()[0] == "griffin: There is no such tokenizer."
    assert main(["info", "rg_lru", "--data.tokenizer", "gone.model"]) == 3
