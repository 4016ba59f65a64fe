"""Runs as jobs, through submitit's stand-in for a cluster: each job runs in this process when it is asked for."""

import gc
import importlib
import json
from contextlib import closing

import msgspec
import pytest

from griffin_eqx.ablation import slurm
from griffin_eqx.ablation.campaign import Campaign
from griffin_eqx.ablation.folder import read_failure
from griffin_eqx.ablation.messages import Failed, Finished
from griffin_eqx.ablation.schedule import Broken, Done
from griffin_eqx.cli.ablate import slurm_options
from griffin_eqx.errors import GriffinError, PlanError

from . import stub
from .designs import make_cell, make_design


def test_without_submitit_it_says_what_to_install(tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(GriffinError, match=r"pip install 'griffin_eqx\[cluster\]'"):
        slurm.Cluster(tmp_path, threads=1, options={})


def test_options_of_the_cluster_are_words_with_a_value():
    assert slurm_options(("slurm_partition=gpu", "timeout_min=60")) == {
        "slurm_partition": "gpu",
        "timeout_min": 60,
    }
    with pytest.raises(PlanError, match="--slurm gpu: write NAME=VALUE"):
        slurm_options(("gpu",))


@pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning"
)  # submitit's stand-in leaves its logs open
def test_jobs_run_and_failures_are_written_down(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setattr(slurm, "_POLL_SECONDS", 0.0)
    began = []

    def job(run_dir, config, cache, plugins):
        began.append(run_dir)
        path = tmp_path / run_dir
        path.mkdir(parents=True, exist_ok=True)
        if "bad" in run_dir:
            return msgspec.json.encode(Failed(reason="by hand"))
        rate = json.loads(config)["optimizer"]["learning_rate"]
        (path / "outcome.jsonl").write_text(stub.outcome(rate, 1))
        return msgspec.json.encode(Finished())

    cells = [make_cell(name, "copy", learning_rates=(1e-3, 1e-2)) for name in ("good", "bad")]
    design = make_design(cells, seeds=(0, 1))
    ends = {}
    for _ in range(2):  # the second time there is nothing to do
        cluster = slurm.Cluster(
            tmp_path,
            threads=1,
            options={"timeout_min": 1},
            plugins=[tmp_path / "a.py"],
            cluster="debug",
            entry=job,
        )
        with closing(cluster):
            campaign = Campaign(tmp_path, design, cluster)
            assert campaign.go(lambda: False, lambda run, event: None)
        ends = {str(path): type(end) for path, end in campaign.ends.items()}
    assert ends == {
        "runs/good/copy/lr0.001/seed0": Done,
        "runs/good/copy/lr0.01/seed0": Done,
        "runs/good/copy/lr0.01/seed1": Done,
        "runs/bad/copy/lr0.001/seed0": Broken,
        "runs/bad/copy/lr0.01/seed0": Broken,
    }
    assert len(began) == 5
    failure = read_failure(tmp_path / "runs/bad/copy/lr0.01/seed0")
    assert failure is not None
    assert failure.reason == "by hand"
    assert json.loads((tmp_path / slurm.JOBS).read_text()) == {}
    gc.collect()


def test_a_wrong_option_is_refused(tmp_path):
    pytest.importorskip("submitit")
    with pytest.raises(GriffinError, match="runs cannot be submitted"):
        slurm.Cluster(tmp_path, threads=1, options={"nonsense": 1}, cluster="debug")
