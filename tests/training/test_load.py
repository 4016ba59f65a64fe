import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from griffin_eqx.cli import main
from griffin_eqx.config import dumps, load_file
from griffin_eqx.errors import CheckpointError, RunError
from griffin_eqx.training import checkpoints
from griffin_eqx.training.load import load
from griffin_eqx.training.loop import train

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, make_config):
    path = tmp_path_factory.mktemp("runs") / "run"
    # A learning rate that ruins what was learned: the best is not the last.
    config = make_config(
        pattern="rg_lru", learning_rate=0.5, final_fraction=1.0, warmup_steps=11, eval_every=1
    )
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        train(config, run_dir=path, quiet=True)
    return path


def test_best_and_last_are_what_they_say(run_dir):
    best, last = load(run_dir), load(run_dir, which="last")
    assert last.step == 12
    standing = checkpoints.describe(run_dir / "checkpoints", 12).standing
    assert best.step == standing.best_step
    assert best.config == load_file(run_dir / "config.toml")
    assert best.tokenizer is not None
    logits, _ = best.model(jnp.asarray(best.tokenizer.encode("abc"), jnp.int32))
    assert logits.shape == (3, 257)
    if best.step != 12:
        assert not np.array_equal(best.model.embedding.weight, last.model.embedding.weight)


def test_a_copy_of_the_folder_is_the_run(run_dir, tmp_path):
    shutil.copytree(run_dir, tmp_path / "copy")
    assert np.array_equal(
        load(tmp_path / "copy").model.embedding.weight, load(run_dir).model.embedding.weight
    )


def test_errors_say_what_where_and_what_to_do(run_dir, tmp_path):
    with pytest.raises(RunError) as caught:
        load(tmp_path)
    assert len(str(caught.value).splitlines()) == 3
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy)
    shutil.rmtree(copy / "checkpoints" / "12" / "model")
    with pytest.raises(CheckpointError) as caught:
        load(copy, which="last")
    assert len(str(caught.value).splitlines()) == 3
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        load(copy)


def test_the_command_trains_resumes_and_refuses(run_dir, tmp_path, make_config, capsys):
    config = tmp_path / "config.toml"
    config.write_text(dumps(make_config(pattern="rg_lru", steps=4)))
    command = ["train", str(config), "--run-dir", str(tmp_path / "run")]
    assert main(command) == 0
    assert "next: griffin sample" in capsys.readouterr().out
    assert main([*command, "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert main([*command, "--model.width", "32"]) == 2
    assert "model.width: 16 there, 32 asked for" in capsys.readouterr().err
    for path in (tmp_path / "run" / "checkpoints" / "4" / "description").iterdir():
        path.write_bytes(b"")
    assert main(command) == 4
    assert "The checkpoint is damaged" in capsys.readouterr().err
    assert main(["train", "--name", "../x"]) == 2
    assert "cannot be a run's name" in capsys.readouterr().err
