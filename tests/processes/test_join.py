"""How a command is told of other processes; without being told it never joins any."""

import re
from pathlib import Path

import jax
import pytest

from griffin_eqx.cli import main
from griffin_eqx.cli.doctor import cluster
from griffin_eqx.processes import ALONE, ProcessError, current, detect, join
from tests.processes.ports import free_port


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ("--processes few", "--processes is auto or a number: got 'few'."),
        ("--coordinator a:1", "--processes is auto or a number: got nothing and --coordinator."),
        ("--join-seconds 9", "--processes is auto or a number: got nothing and --join-seconds."),
        ("--processes auto --process-index 0", "got 'auto' and --process-index."),
        ("--processes 2", "missing: coordinator, process index."),
        ("--processes 2 --coordinator a:1 --process-index 2", "There is no process 2 among 2."),
        ("--processes auto", "JAX finds no cluster here: it sees none of them."),
    ],
)
def test_the_command_says_what_is_wrong(capsys, options, part):
    assert main(["train", *options.split()]) == 2
    error = capsys.readouterr().err
    assert part in error
    assert len(error.splitlines()) == 3


def test_nobody_at_the_coordinators_address(capsys):
    address = f"127.0.0.1:{free_port()}"
    options = f"--processes 2 --coordinator {address} --process-index 1 --join-seconds 1"
    assert main(["train", *options.split()]) == 2
    assert f"did not answer within 1 s: Connection refused.\n  {address}, from" in capsys.readouterr().err


@pytest.fixture
def slurm(monkeypatch):
    """What SLURM sets for one of two tasks on this machine."""

    def set_for(tasks):
        names = {
            "JOB_ID": "7",
            "STEP_NODELIST": "localhost",
            "NTASKS": str(tasks),
            "PROCID": "0",
            "LOCALID": "0",
        }
        for name, value in names.items():
            monkeypatch.setenv(f"SLURM_{name}", value)

    return set_for


def test_a_cluster_is_detected_by_jax(slurm):
    slurm(2)
    with pytest.raises(ProcessError, match="within 1 s process 1 did not come") as caught:
        join(seconds=1)
    (found,) = cluster()
    assert found.detail == "2, this is 0; they meet at localhost:61447 (--processes auto)"
    assert "localhost:61447" in str(caught.value)  # JAX's: the job's number from 61440 on
    assert current() is ALONE


def test_jaxs_own_variables_come_before_what_it_detects(slurm, monkeypatch):
    slurm(2)
    place, local_devices = detect()
    assert (place.coordinator, local_devices) == (
        "localhost:61447",
        [0],
    )  # a task has the device of its number
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "there:1")
    monkeypatch.setenv("JAX_LOCAL_DEVICE_IDS", "0,1")
    place, local_devices = detect()
    assert (place.coordinator, local_devices) == ("there:1", None)  # JAX reads the second one itself


def test_one_task_in_a_cluster_is_a_process_on_its_own(slurm):
    slurm(1)
    assert join() is ALONE
    assert not jax.distributed.is_initialized()


def test_the_page_names_options_that_are_there(capsys):
    page = (Path(__file__).parents[2] / "docs" / "processes.md").read_text(encoding="utf-8")
    main(["train", "--help"])
    there = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    # Those of SLURM stand in front of the command, and one in the text.
    ours = re.sub(r"^#SBATCH.*$|^srun \S+|`--gpus-per-task`", "", page, flags=re.MULTILINE)
    assert set(re.findall(r"--[a-z][a-z-]+", ours)) <= there
