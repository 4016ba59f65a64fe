"""Real runs: killed, stopped and taken up again, they come to the same bits as left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import pytest

from .test_pool import alive, wait_until, workers_of

PLAN = """
base = "griffin-tiny"
seeds = 2
[config]
model = {pattern = "rg_lru", width = 16, lru_width = 16, blocks = {rg_lru = {gate_blocks = 2}}}
data = {seq_len = 16, batch_size = 4}
optimizer = {warmup_steps = 2}
train = {eval_every = 20, checkpoint_every = 8, log_every = 1, eval_tokens = 128}
[budget]
BUDGET
[variants.hawk]
[variants.again]
init_seed = 1000
[tasks.induction_heads]
task = "induction_heads[vocab=8]"
"""
BUDGETS = {"steps": "steps = 30", "tokens": "tokens = 1900", "flops": "flops = 5e7"}

SCRIPT = """
import sys, griffin_eqx as gx
from griffin_eqx.ablation import ablate
ablate.tell = lambda folder, board: None
result = gx.ablate(sys.argv[1], folder=sys.argv[2], workers=int(sys.argv[3]), threads=1)
sys.exit(0 if result.finished and not result.failed else 130)
"""


def start(plan, folder, workers, *, quickly=False):
    """The command in a process of its own, with the compiler's settings of a user; its programs are the suite's."""
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.values["jax_compilation_cache_dir"]),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    if quickly:
        settings["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SCRIPT, plan, folder, str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | settings,
        start_new_session=True,
    )


def finish(process, code=0):
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (code, "")
    return out


def quality(folder):
    """Everything that runs have written down, but for what the clock and the machine say."""
    return {
        str(path.relative_to(folder)): [
            {key: value for key, value in json.loads(line).items() if key != "time"}
            for line in path.read_text().splitlines()
        ]
        for name in ("metrics", "outcome")
        for path in sorted(folder.glob(f"runs/*/*/*/*/{name}.jsonl"))
    }


def lines_written(folder):
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("runs/*/*/*/*/metrics.jsonl"))


def wait_for_lines(process, folder, more):
    before = lines_written(folder)
    wait_until(lambda: lines_written(folder) >= before + more, seconds=120)
    assert process.poll() is None


def make_plan(folder, budget):
    path = folder / "plan.toml"
    path.write_text(PLAN.replace("BUDGET", BUDGETS[budget]))
    return path


def test_kills_and_other_workers_change_no_bit(tmp_path):
    plan, folder = make_plan(tmp_path, "steps"), tmp_path / "torn"
    finish(start(plan, tmp_path / "straight", 1, quickly=True))
    expected = quality(tmp_path / "straight")
    assert len(expected) == 8
    process = start(plan, folder, 2, quickly=True)
    wait_for_lines(process, folder, 15)
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    wait_for_lines(process, folder, 15)
    workers = workers_of(process.pid)
    process.kill()
    process.communicate()
    wait_until(lambda: not any(map(alive, workers)), seconds=5)
    assert "4/4" in finish(start(plan, folder, 2, quickly=True))
    assert quality(folder) == expected


@pytest.mark.thorough
@pytest.mark.parametrize("budget", BUDGETS)
def test_killed_at_random_moments_it_comes_to_the_same_bits(tmp_path, budget):
    """Twenty moments over the three budgets, at any time: while JAX starts, compiles, trains, evaluates or saves."""
    plan = make_plan(tmp_path, budget)
    finish(start(plan, tmp_path / "straight", 2))
    expected = quality(tmp_path / "straight")
    random.seed(budget)
    for _ in range(7):
        process = start(plan, tmp_path / "torn", 2)
        time.sleep(random.uniform(0.5, 12.0))
        workers = workers_of(process.pid)
        if workers and random.random() < 0.5:
            os.kill(random.choice(workers), signal.SIGKILL)
            time.sleep(random.uniform(0.5, 4.0))
        process.kill()
        process.communicate()
    finish(start(plan, tmp_path / "torn", 2))
    assert quality(tmp_path / "torn") == expected
