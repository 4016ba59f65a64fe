"""Several processes train as one: the same bits, whoever is killed or stopped on the way, and however many go on."""

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest

from griffin_eqx.config import dumps
from griffin_eqx.mesh import MeshShape
from griffin_eqx.training import checkpoints
from griffin_eqx.training.loop import train
from griffin_eqx.training.metrics import read_metrics
from griffin_eqx.training.outcome import read_outcome
from griffin_eqx.training.parts import STAGED
from tests.processes.ports import free_port

# One worker runs them all: they share a run, and each keeps two cores busy by itself.
pytestmark = pytest.mark.xdist_group("processes")

STEPS = 9
# Seconds after which a process hangs, on the most loaded machine.
PATIENCE = 240


@pytest.fixture(scope="module")
def config(make_config):
    return make_config(
        pattern="rg_lru*2",
        blocks={"rg_lru": {"gate_blocks": 2}},
        batch_size=4,
        carry=True,
        steps=STEPS,
        checkpoint_every=2,
        keep_checkpoints=9,
        eval_every=4,
        final_test=True,
    )


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    """The run in one process, over as many devices."""
    path = tmp_path_factory.mktemp("alone") / "run"
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert train(config, run_dir=path, quiet=True, mesh=MeshShape(data=2)).finished
    return path


class Processes:
    """Real ones, on loopback, with the compiler's settings of this process: a run has the same bits only then."""

    def __init__(self, count, config, run_dir, mesh="data=2", *, pause=0.0, deaths=None):
        self.since = time.time()
        file = run_dir.with_suffix(".toml")
        file.write_text(dumps(config))
        quickly = jax.config.values["jax_disable_most_optimizations"]
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(jax.config.values["jax_compilation_cache_dir"]),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": str(quickly),
        }
        if quickly and jax.__version_info__ < (0, 11):
            environment["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"
        script = Path(__file__).with_name("joined_run.py")
        where = [str(file), str(run_dir), mesh, f"127.0.0.1:{free_port()}", str(count)]
        self.started = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-W",
                    "error",
                    script,
                    *where,
                    str(index),
                    str(pause),
                    str((deaths or {}).get(index, 0)),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
            for index in range(count)
        ]

    def ended(self):
        """`[(exit code, standard output, standard error), ...]` of all."""
        found = []
        for process in self.started:
            try:
                out, err = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                for other in self.started:
                    other.kill()
                raise
            found.append((process.returncode, out, err))
        return found


def leaves(run_dir):
    """The newest step, and the SHA-256 of every array of its checkpoint."""
    folder = Path(run_dir) / "checkpoints"
    step = checkpoints.steps(folder)[-1]
    return step, {name: leaf.sha256 for name, leaf in checkpoints.describe(folder, step).leaves.items()}


def quality(run_dir):
    lines = read_metrics(Path(run_dir) / "metrics.jsonl")
    return [{key: value for key, value in line.items() if key != "time"} for line in lines]


def outcome(run_dir):
    found = read_outcome(Path(run_dir))
    assert found is not None
    sets, run = found
    return [(each.split, each.loss, each.exact) for each in sets], run.tokens


def parts(run_dir):
    """Bytes of the arrays of the newest checkpoint in each of its parts."""
    step = checkpoints.steps(run_dir / "checkpoints")[-1]
    description = checkpoints.describe(run_dir / "checkpoints", step)
    sizes = Counter()
    for name, leaf in description.leaves.items():
        sizes[description.parts.get(name, 0)] += math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
    there = run_dir / "checkpoints" / str(step) / "parts"
    assert {path.name for path in there.glob("[0-9]*")} == {str(index) for index in sizes if index}
    return sizes


def assert_same_run(one, other):
    assert leaves(one) == leaves(other)
    assert quality(one) == quality(other)
    assert outcome(one) == outcome(other)


def wait_for_step(run_dir, step, processes):
    metrics = run_dir / "metrics.jsonl"
    for _ in range(100 * PATIENCE):
        # Those before, who were killed in a save, may have come farther than their checkpoint; their lines are cut off.
        new = metrics.exists() and metrics.stat().st_mtime > processes.since
        if new and f'"step":{step},'.encode() in metrics.read_bytes():
            return
        for process in processes.started:
            assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError(f"never came to step {step}")


def test_a_run_goes_from_hand_to_hand(config, alone, tmp_path):
    """Two processes, the writing one killed in the middle of a save; two, one of them asked to stop; one; two."""
    path = tmp_path / "run"
    (code, _, _), (code_1, out_1, err_1) = Processes(2, config, path, deaths={0: 4}).ended()
    # Without process 0, which runs JAX's coordinator, JAX aborts the others: we are quicker, but that is a race.
    assert code == -signal.SIGKILL
    assert code_1 in (6, -signal.SIGABRT)
    assert "Process 0 of this training is gone" in err_1 or "JAX distributed service detected" in err_1
    assert leaves(path)[0] == 2
    assert "step" not in out_1  # one process tells the progress

    second = Processes(2, config, path, pause=0.2)
    wait_for_step(path, 5, second)
    second.started[1].send_signal(signal.SIGTERM)
    (code, out, err), (code_1, _, err_1) = second.ended()
    assert (code, code_1, err, err_1) == (130, 130, "", "")
    step = leaves(path)[0]
    assert "step 2 of 9" in out
    assert f"stopped at step {step} of 9" in out
    assert 5 <= step < 8

    assert (
        train(config, run_dir=path, quiet=True, mesh=MeshShape(data=2), stop=lambda now: now == 8).step == 8
    )
    for code, _, err in Processes(2, config, path).ended():
        assert (code, err) == (0, "")
    assert_same_run(alone, path)
    assert parts(path).keys() == {0, 1}
    assert not parts(alone).keys() - {0}
    assert not list((path / "checkpoints" / STAGED).glob("*"))


def test_a_part_that_is_not_written_is_a_checkpoint_that_is_not_there(config, alone, tmp_path):
    path = tmp_path / "run"
    both = Processes(2, config, path, deaths={1: 4})
    both.started[1].wait(PATIENCE)
    died = time.monotonic()
    (code, _, err), (code_1, _, _) = both.ended()
    assert time.monotonic() - died < 30
    assert (code, code_1) == (6, -signal.SIGKILL)
    assert "Process 1 of this training is gone, so process 0 ends as well.\n" in err
    assert "The same command for all goes on from the last complete checkpoint." in err
    assert leaves(path)[0] == 2
    assert parts(path)[1] > 0.4 * parts(path).total()
    assert train(config, run_dir=path, quiet=True, mesh=MeshShape(data=2)).finished
    assert_same_run(alone, path)


@pytest.mark.thorough
def test_two_processes_hand_over_to_four(config, tmp_path):
    """On another mesh: the four are one process with as many devices, from the same checkpoint on."""
    path, copy = tmp_path / "run", tmp_path / "copy"
    first = Processes(2, config, path, pause=0.2)
    wait_for_step(path, 3, first)
    first.started[0].send_signal(signal.SIGINT)
    assert [code for code, _, _ in first.ended()] == [130, 130]
    shutil.copytree(path, copy)
    before = leaves(path)

    many = Processes(4, config, path, "data=2,model=2", deaths={3: 8})
    codes = [code for code, _, _ in many.ended()]
    assert codes == [6, 6, 6, -signal.SIGKILL]
    assert leaves(path)[0] == max(before[0], 6)  # a process saves step 8 once 6 is whole
    for code, _, err in Processes(4, config, path, "data=2,model=2").ended():
        assert (code, err) == (0, "")
    assert train(config, run_dir=copy, quiet=True, mesh=MeshShape(data=2, model=2)).finished
    assert_same_run(path, copy)


@pytest.mark.thorough
def test_a_run_that_diverges_says_where_in_all_processes(make_config, tmp_path):
    config = make_config(pattern="rg_lru*2", batch_size=4, learning_rate=1e30, max_skipped=0)
    for code, _, err in Processes(2, config, tmp_path / "run").ended():
        assert code == 5
        assert "Training stopped being finite: an update had to be skipped" in err
