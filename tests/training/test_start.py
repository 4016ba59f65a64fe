"""Runs that start from the weights of another: whose they are is kept, and they are not needed again."""

import json
import shutil

import jax
import numpy as np
import pytest

from griffin_eqx.cli import main
from griffin_eqx.errors import CheckpointError, ConfigError, RunError
from griffin_eqx.interop import save
from griffin_eqx.training.load import load
from griffin_eqx.training.loop import train
from griffin_eqx.training.naming import flatten

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def first(tmp_path_factory, make_config):
    """A run of three steps, in a folder that tests copy before they harm it."""
    path = tmp_path_factory.mktemp("runs") / "first"
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        train(make_config(pattern="rg_lru*2", steps=3), run_dir=path, quiet=True)
    return path


@pytest.fixture
def source(first, tmp_path):
    return shutil.copytree(first, tmp_path / "first")


@pytest.fixture
def asked(make_config, source):
    return make_config(
        pattern="rg_lru*2",
        steps=4,
        checkpoint_every=2,
        seed=7,
        init_from=str(source),
        freeze=("layers.0-1.temporal", "embedding"),
    )


def arrays(model):
    return flatten({"model": model})


def test_it_starts_from_the_best_weights_and_what_is_frozen_keeps_them(tmp_path, source, asked, capsys):
    train(asked, run_dir=tmp_path / "second")
    told = capsys.readouterr().out
    assert "frozen by layers.0-1.temporal: 18 arrays, 2,272 parameters" in told
    assert f"from the weights of {source}, step 3" in told
    before, after = arrays(load(source).model), arrays(load(tmp_path / "second", which="last").model)
    same = {name for name in before if np.array_equal(before[name], after[name])}
    assert same == {name for name in before if ".temporal." in name or "embedding" in name}
    # A step's change is at most about its learning rate: none of these is a fresh draw.
    assert all(np.abs(after[name] - before[name]).max() < 0.05 for name in before)
    env = json.loads((tmp_path / "second" / "env.json").read_text())
    assert env["init_from"]["source"] == str(source)
    assert len(env["init_from"]["digest"]) == 64


def test_it_goes_on_without_them_once_there_is_a_checkpoint(tmp_path, source, asked):
    train(asked, run_dir=tmp_path / "straight", quiet=True)
    train(asked, run_dir=tmp_path / "second", quiet=True, stop=lambda step: step == 2)
    shutil.rmtree(source)
    assert train(asked, run_dir=tmp_path / "second", quiet=True).finished
    straight, stopped = (arrays(load(tmp_path / name, which="last").model) for name in ("straight", "second"))
    assert all(np.array_equal(straight[name], stopped[name]) for name in straight)


def test_weights_that_changed_before_the_first_checkpoint_are_noticed(tmp_path, source, asked, make_config):
    train(asked, run_dir=tmp_path / "second", quiet=True, stop=lambda step: True)
    shutil.rmtree(tmp_path / "second" / "checkpoints")
    shutil.rmtree(source)
    train(make_config(pattern="rg_lru*2", steps=1, init_seed=3), run_dir=source, quiet=True)
    with pytest.raises(RunError, match="have changed since the run was set up"):
        train(asked, run_dir=tmp_path / "second", quiet=True)


def test_another_model_is_refused_with_what_differs_before_anything_is_made(tmp_path, source, make_config):
    other = make_config(pattern="rg_lru local_mqa", width=32, init_from=str(source))
    with pytest.raises(CheckpointError) as caught:
        train(other, run_dir=tmp_path / "second", quiet=True)
    assert str(caught.value).splitlines() == [
        "train.init_from has the weights of another model.",
        f"  {source}",
        "  model.mlp_width: 48 there, 96 asked for",
        "  model.pattern: rg_lru*2 there, rg_lru local_mqa asked for",
        "  model.width: 16 there, 32 asked for",
        "  Leave MODEL out to take the model from there, or name the same one.",
    ]
    assert not (tmp_path / "second").exists()


def test_the_newest_run_is_no_name_of_weights_to_start_from(source, tmp_path, monkeypatch, make_config):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    source.rename(tmp_path / "runs" / "first")
    with pytest.raises(ConfigError, match=r"newest one now is runs/first\.\n  Name a folder\."):
        train(make_config(pattern="rg_lru*2", init_from="latest"), run_dir=tmp_path / "second", quiet=True)
    assert not (tmp_path / "second").exists()


def test_a_path_that_freezes_nothing_is_refused_before_anything_is_made(tmp_path, make_config):
    with pytest.raises(ConfigError, match=r"no parameter is named 'layers\.2'"):
        train(make_config(pattern="rg_lru*2", freeze=("layers.2",)), run_dir=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_weights_does_too_in_the_dtypes_of_the_run(tmp_path, source, make_config):
    loaded = load(source)
    save(loaded.model, loaded.config, tmp_path / "weights", step=loaded.step)
    config = make_config(
        pattern="rg_lru*2",
        steps=1,
        init_from=str(tmp_path / "weights"),
        precision="p=bf16",
        learning_rate=0.0,
    )
    train(config, run_dir=tmp_path / "second", quiet=True)
    before, after = arrays(loaded.model), arrays(load(tmp_path / "second").model)
    for name, array in after.items():
        assert np.array_equal(array, before[name].astype(array.dtype)), name
    assert {str(array.dtype) for array in after.values()} == {"bfloat16", "float32"}  # a_param stays wide


def test_without_a_model_the_command_takes_the_one_of_the_weights(source, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--init-from", "first", "--train.steps", "5", "--print-config"]) == 0
    told = capsys.readouterr().out
    for line in ('init_from = "first"', "width = 16", 'pattern = "rg_lru*2"', "steps = 5"):
        assert line in told.splitlines(), line
    assert main(["train", "--init-from=gone"]) == 2
    assert "This is no run directory" in capsys.readouterr().err
