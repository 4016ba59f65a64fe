"""An ablation without JAX, in processes of its own: `stub.py ablation FOLDER WORKERS` and `stub.py worker ...`.

A run counts its steps in the file `step` of its folder, a hundredth of a second each, and goes on from there. What is
to go wrong with the runs of a variant stands in the file `misbehave/VARIANT` of the ablation's folder.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

from griffin_eqx.ablation import worker
from griffin_eqx.ablation.messages import Ready
from griffin_eqx.errors import ConfigError, DivergedError
from griffin_eqx.training.stopping import asked_to_stop

COMMAND = (sys.executable, __file__, "worker")


class Result(NamedTuple):
    finished: bool
    compile_seconds: float = 0.5


def train(config, *, run_dir, quiet, stop, watch):
    path = Path(run_dir)
    plan, variant = path.parents[4], path.parts[-4]
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.toml").touch()
    file = plan / "misbehave" / variant
    misbehaviour = file.read_text() if file.exists() else ""
    counter = path / "step"
    step = int(counter.read_text()) if counter.exists() else 0
    with asked_to_stop() as asked:
        while step < config.train.steps:
            if asked() or stop(step):
                return Result(finished=False)
            time.sleep(0.01)
            step += 1
            replace(counter, str(step))
            watch(step, 1.0, 100.0)
            if misbehaviour == "diverge":
                raise DivergedError("not finite.\n  at step 1")
            if misbehaviour == "error":
                raise ConfigError("this cannot be.")
            if misbehaviour == "bug":
                raise ZeroDivisionError("by hand")
            if misbehaviour == "die":
                print("last words", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
    replace(path / "outcome.jsonl", outcome(config.train.seed + 100 * config.optimizer.learning_rate, step))
    with open(plan / "trained", "a") as log:
        log.write(f"{path.relative_to(plan)}\n")
    return Result(finished=True)


def outcome(value, steps):
    """Without `training.outcome`, which imports NumPy: a stub starts in no time."""
    kept = {"kind": "evaluation", "split": "validation", "name": "length 16", "seq_len": 16, "rows": 1}
    kept |= {
        "targets": 1,
        "bytes": 0,
        "loss": value,
        "bits_per_byte": None,
        "accuracy": value,
        "exact": value,
    }
    run = {"kind": "run", "steps": steps, "skipped": 0, "tokens": 1, "parameters": 1}
    return json.dumps(kept | {"by_position": []}) + "\n" + json.dumps(run) + "\n"


def replace(path, text):
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


def as_worker():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipes = worker.Pipes.take()
    pipes.tell(Ready())
    code = worker.serve(pipes, train)
    time.sleep(0.3)  # whoever leaves may take its time: no run must be handed to it
    return code


def as_ablation(path, workers):
    from contextlib import closing

    import msgspec

    from griffin_eqx.ablation import ablate, folder
    from griffin_eqx.ablation.board import Board
    from griffin_eqx.ablation.campaign import Campaign
    from griffin_eqx.ablation.design import Design
    from griffin_eqx.ablation.pool import Pool

    # As from a terminal: who starts tests in the background has Ctrl-C ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ablate.tell = lambda folder, board: None
    design = msgspec.json.decode((path / "design.json").read_bytes(), type=Design)
    with asked_to_stop() as asked, folder.locked(path) as lock, Board() as board:
        pool = Pool(path, workers=workers, threads=1, inherited=[lock], command=COMMAND)
        with closing(pool):
            return 0 if ablate.run(Campaign(path, design, pool), board, asked).finished else 130


if __name__ == "__main__":
    sys.exit(as_worker() if sys.argv[1] == "worker" else as_ablation(Path(sys.argv[2]), int(sys.argv[3])))
