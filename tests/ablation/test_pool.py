"""Processes: what dies, what is stopped and what fails costs nobody else anything, and nobody is left behind."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from griffin_eqx.ablation import folder as disk
from griffin_eqx.ablation.campaign import Campaign
from griffin_eqx.ablation.design import possible_runs
from griffin_eqx.ablation.folder import read_failure
from griffin_eqx.ablation.pool import Pool, share
from griffin_eqx.ablation.schedule import Broken, Done
from griffin_eqx.errors import RunError

from . import stub
from .designs import make_cell, make_design

STUB = Path(stub.__file__)


def small_design(*variants, steps=20, seeds=(0, 1), **options):
    return make_design([make_cell(name, "copy", steps=steps, **options) for name in variants], seeds=seeds)


def start(folder, design, workers=2):
    folder.mkdir(exist_ok=True)
    (folder / "design.json").write_bytes(msgspec.json.encode(design))
    command = [sys.executable, "-W", "error", STUB, "ablation", folder, str(workers)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process, code=0):
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, "")
    return out


def trained(folder):
    """The runs that were trained to their end, as often as they were."""
    log = folder / "trained"
    return log.read_text().splitlines() if log.exists() else []


def assert_all_done_once(folder, design):
    """Every run has an outcome, and none was trained again after it had one."""
    runs = {run.path for cell in design.cells for run in possible_runs(design, cell)}
    ends = disk.ends(folder, design)
    assert ends.keys() == runs
    assert all(isinstance(end, Done) for end in ends.values())
    # A kill may fall between an outcome and its line here.
    assert len(set(trained(folder))) == len(trained(folder))


def catches(pid, number):
    """Whether a process has a handler of its own for a signal."""
    (mask,) = (
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt:")
    )
    return bool(int(mask.split()[1], 16) >> (number - 1) & 1)


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def workers_of(pid):
    """The processes whose parent is `pid`."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def steps_done(folder):
    return sum(int(path.read_text()) for path in folder.glob("runs/*/*/*/*/step"))


def test_failures_are_written_down_and_the_rest_goes_on(tmp_path):
    design = small_design("good", "diverge", "error", "bug", "die", steps=3, seeds=(0,))
    (tmp_path / "misbehave").mkdir()
    for name in ("diverge", "error", "bug", "die"):
        (tmp_path / "misbehave" / name).write_text(name)
    out = finish(start(tmp_path, design))
    ends = {path.parts[1]: end for path, end in disk.ends(tmp_path, design).items()}
    assert isinstance(ends.pop("good"), Done)
    assert ends == {
        "diverge": Broken("diverged", "not finite.\n  at step 1"),
        "error": Broken("error", "this cannot be."),
        "bug": Broken("error", "ZeroDivisionError: by hand"),
        "die": Broken(
            "crash", "its process was ended by SIGKILL, as a system short of memory does: last words"
        ),
    }
    failure = read_failure(tmp_path / "runs/die/copy/lr0.001/seed0")
    assert failure is not None
    assert failure.attempts == 3
    for words in ("5/5", "this cannot be.", "last words", "to try failed runs again:", "--retry"):
        assert words in out
    # Once more: nothing is tried again, unless it is asked for; what diverged never is.
    finish(start(tmp_path, design))
    assert len(trained(tmp_path)) == 1
    for name in ("diverge", "error", "bug", "die"):
        (tmp_path / "misbehave" / name).unlink()
    assert disk.forgive(tmp_path, design) == 3
    finish(start(tmp_path, design))
    assert [path.split("/")[1] for path in sorted(trained(tmp_path))] == ["bug", "die", "error", "good"]


def test_the_whole_may_be_killed_at_any_moment(tmp_path):
    design = small_design("a", "b", steps=30)
    for steps in (1, 50):
        process = start(tmp_path, design)
        wait_until(lambda steps=steps: steps_done(tmp_path) >= steps)
        workers = workers_of(process.pid)
        process.kill()
        process.communicate()
        # They notice that nobody is there any more.
        wait_until(lambda workers=workers: not any(map(alive, workers)), seconds=5)
    finish(start(tmp_path, design))
    assert_all_done_once(tmp_path, design)


def test_a_folder_is_run_once_at_a_time(tmp_path):
    design = small_design("a", steps=100)
    process = start(tmp_path, design)
    wait_until(lambda: steps_done(tmp_path) >= 1)
    words = rf"Another process \(process {process.pid}\) runs this ablation"
    with pytest.raises(RunError, match=words), disk.locked(tmp_path):
        pass
    process.kill()
    process.communicate()
    # A lock is held by nobody who is dead; their workers are waited for.
    with disk.locked(tmp_path):
        pass


def test_signals_save_and_stop_and_the_command_goes_on(tmp_path):
    design = small_design("a", "b", steps=60)
    for number, steps in ((signal.SIGINT, 20), (signal.SIGTERM, 60)):
        process = start(tmp_path, design)
        wait_until(lambda steps=steps: steps_done(tmp_path) >= steps)
        asked = time.monotonic()
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does: the workers get it as well
        else:
            process.send_signal(number)
        out = finish(process, 130)
        assert time.monotonic() - asked < 10
        assert f"to go on:\n  griffin ablate {tmp_path}\n" in out
    assert trained(tmp_path) == []
    finish(start(tmp_path, design))
    assert_all_done_once(tmp_path, design)


def test_a_second_signal_ends_it_at_once(tmp_path):
    design = small_design("a", steps=1000)
    process = start(tmp_path, design)
    wait_until(lambda: steps_done(tmp_path) >= 1)
    workers = workers_of(process.pid)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)  # they cannot save any more
    process.send_signal(signal.SIGINT)
    # Heard once it has given SIGTERM back; two signals that come together are one.
    wait_until(lambda: not catches(process.pid, signal.SIGTERM))
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode != 0
    assert not any(map(alive, workers))


def test_workers_that_are_killed_or_terminated_are_replaced(tmp_path):
    design = small_design("a", "b", steps=40)
    process = start(tmp_path, design)
    for steps, number in ((10, signal.SIGKILL), (40, signal.SIGTERM), (80, signal.SIGKILL)):
        wait_until(lambda steps=steps: steps_done(tmp_path) >= steps)
        wait_until(lambda: workers_of(process.pid))
        os.kill(workers_of(process.pid)[0], number)
    finish(process)
    assert_all_done_once(tmp_path, design)


def test_a_worker_that_cannot_start_is_told_of_at_once(tmp_path):
    design = small_design("a")
    broken = (sys.executable, "-c", "import sys; sys.exit('no JAX here')")
    words = r"does not start: its process ended with exit code 1: no JAX here\."
    with (
        closing(Pool(tmp_path, workers=1, threads=1, command=broken)) as pool,
        pytest.raises(RunError, match=words) as error,
    ):
        Campaign(tmp_path, design, pool).go(lambda: False, lambda run, event: None)
    assert str(tmp_path) in str(error.value)


def test_cores_are_dealt_out_in_turn():
    cores = sorted(os.sched_getaffinity(0))
    assert share(0, 1) == [cores[0]]
    assert share(len(cores), 1) == [cores[0]]
    assert share(0, len(cores)) == share(1, len(cores)) == cores
    assert share(0, 10 * len(cores)) == cores
    assert share(1, 1) == [cores[1 % len(cores)]]
