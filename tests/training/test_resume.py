"""Resuming is invisible: the same bits as without the stop."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest

from griffin_eqx.config import dumps
from griffin_eqx.training import checkpoints
from griffin_eqx.training.loop import train
from griffin_eqx.training.metrics import read_metrics
from griffin_eqx.training.naming import flatten
from griffin_eqx.training.step import init_state


def quality(run_dir):
    """All lines, without what the clock says."""
    return [
        {key: value for key, value in line.items() if key != "time"}
        for line in read_metrics(Path(run_dir) / "metrics.jsonl")
    ]


def weights(run_dir, config):
    """Every array of the newest state."""
    folder = Path(run_dir) / "checkpoints"
    template = eqx.filter_eval_shape(lambda: init_state(config, key=jax.random.key(0)))
    return flatten(checkpoints.restore(folder, checkpoints.steps(folder)[-1], template, config.model))


def assert_same_run(one, two, config):
    assert quality(one) == quality(two)
    a, b = weights(one, config), weights(two, config)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name
    steps = config.train.steps
    assert (one / "samples" / f"{steps}.txt").read_bytes() == (two / "samples" / f"{steps}.txt").read_bytes()


def stopped_at(step):
    return lambda now: now >= step


@pytest.mark.core
@pytest.mark.parametrize("carry", [False, True])
def test_stops_at_several_steps_change_nothing(tmp_path, make_config, carry, capsys):
    config = make_config(carry=carry)
    straight = train(config, run_dir=tmp_path / "straight", quiet=True)
    assert straight.finished
    assert straight.step == 12
    assert capsys.readouterr() == ("", "")
    # After the first step; at, after and before a checkpoint; at an evaluation; before the last step.
    for stop in (1, 4, 5, 7, 11) if carry else (6, 11):
        result = train(config, run_dir=tmp_path / "stopped", quiet=True, stop=stopped_at(stop))
        assert (result.step, result.finished) == (stop, False)
    result = train(config, run_dir=tmp_path / "stopped")
    assert result.finished
    assert_same_run(tmp_path / "straight", tmp_path / "stopped", config)
    said = capsys.readouterr().out
    assert "step 11 of 12" in said
    assert "compiling the training step" in said
    assert f"next: griffin sample {tmp_path / 'stopped'}" in said
    if not carry:
        # A finished run tells its result and does nothing.
        files = {p: p.stat().st_mtime_ns for p in (tmp_path / "stopped").rglob("*") if p.name != ".lock"}
        again = train(config, run_dir=tmp_path / "stopped")
        assert again == result._replace(tokens_per_second=None, compile_seconds=0.0)
        assert {p: p.stat().st_mtime_ns for p in files} == files


@pytest.mark.core
def test_every_line_of_the_metrics_makes_sense(tmp_path, make_config):
    config = make_config(log_every=3, eval_every=4, pattern="rg_lru", steps=8, warmup_steps=0)
    result = train(config, run_dir=tmp_path, quiet=True)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("train", 3),
        ("validation", 4),
        ("train", 6),
        ("train", 8),
        ("validation", 8),
    ]
    for line in lines:
        # Of bytes with nothing between them but one document: bits a byte are nats a target over ln 2.
        assert line["bits_per_byte"] == pytest.approx(line["loss"] / np.log(2), rel=0.05)
        assert line["time"]["seconds"] >= 0
    assert lines[0]["tokens"] == 3 * 4 * 16
    assert lines[0]["epoch"] == pytest.approx(3 * 4 / (11000 / 16), rel=0.5)
    assert lines[3]["learning_rate"] < lines[0]["learning_rate"] < config.optimizer.learning_rate
    assert result.last == lines[-1]["bits_per_byte"]
    assert result.best == min(lines[1]["bits_per_byte"], lines[-1]["bits_per_byte"])
    assert result.tokens_per_second is not None
    assert result.tokens_per_second > 0
    assert result.compile_seconds > 0


def start(config_file, run_dir, seconds_a_step=0.02):
    script = Path(__file__).with_name("slow_run.py")
    # The compiler's settings are those of a user, not those of this process (`tests/conftest.py`): a run has
    # the same bits only with the same settings, so no session of the comparison may be one of this process.
    cache = str(jax.config.values["jax_compilation_cache_dir"])
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-W", "error", script, config_file, run_dir, str(seconds_a_step)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def finish(config_file, run_dir):
    process = start(config_file, run_dir, seconds_a_step=0)
    _, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")


def wait_for_step(process, run_dir, step):
    metrics = run_dir / "metrics.jsonl"
    for _ in range(6000):
        lines = metrics.read_bytes().splitlines() if metrics.exists() else []
        if len(lines) > 1 and f'"step":{step},'.encode() in lines[-1] + lines[-2]:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError(f"never came to step {step}")


def test_signals_and_kills_change_nothing(tmp_path, make_config):
    config = make_config(steps=60, checkpoint_every=5, eval_every=20, carry=True, pattern="rg_lru*2")
    config_file = tmp_path / "config.toml"
    config_file.write_text(dumps(config))
    run_dir = tmp_path / "run"
    for step, number, code in (
        (8, signal.SIGINT, 130),
        (17, signal.SIGKILL, -9),
        (28, signal.SIGTERM, 130),
    ):
        process = start(config_file, run_dir)
        wait_for_step(process, run_dir, step)
        asked = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert err == ""
        if number != signal.SIGKILL:
            assert time.monotonic() - asked < 10
            newest = checkpoints.steps(run_dir / "checkpoints")[-1]
            assert newest >= step
            assert f"stopped at step {newest} of 60; to go on:\n  griffin train " in out
    finish(config_file, run_dir)
    finish(config_file, tmp_path / "straight")
    assert_same_run(run_dir, tmp_path / "straight", config)


def test_a_second_signal_stops_at_once(tmp_path, make_config):
    """The first one here is met by a save that takes long; the handlers of before are back by then."""
    from griffin_eqx.training.stopping import asked_to_stop

    # What a shell starts in the background ignores SIGINT; this test may be that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with asked_to_stop() as asked:
            assert not asked()
            os.kill(os.getpid(), signal.SIGINT)
            assert asked()
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_save_that_fails_stops_the_run(tmp_path, make_config):
    config = make_config(pattern="rg_lru")

    def spoil(step):
        if step == 2:
            (tmp_path / "run" / "checkpoints").rmdir()
            (tmp_path / "run" / "checkpoints").write_text("")
        return False

    from griffin_eqx.errors import CheckpointError

    with pytest.raises(CheckpointError, match="so the run stops"):
        train(config, run_dir=tmp_path / "run", quiet=True, stop=spoil)
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["step"] < 12
