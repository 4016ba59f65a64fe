import json
import os
import subprocess
import sys

import pytest

from griffin_eqx import presets
from griffin_eqx.config import load_file
from griffin_eqx.errors import RunError
from griffin_eqx.training import run_directory
from griffin_eqx.training.differences import differences
from griffin_eqx.training.metrics import MetricsWriter, read_metrics
from griffin_eqx.training.run_directory import claimed, default_name, find, place

pytestmark = pytest.mark.core

FACTS = {"data": {"corpus": "shakespeare", "digest": "abc"}}


def files(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob("*"))


def test_a_run_is_named_after_its_preset_or_custom(make_config):
    hawk = presets.preset("hawk-tiny")
    assert default_name(hawk) == f"hawk-tiny-{hawk.digest}"
    assert default_name(make_config()).startswith("custom-")
    assert place(hawk) == run_directory.RUNS / default_name(hawk)


@pytest.mark.parametrize(
    "name", ["..", ".", "", "a/b", "/etc", "../x", "a\0b", "a\nb", ".hidden", "-rf", "x" * 101, "é"]
)
def test_names_that_could_lead_elsewhere_are_refused(make_config, name):
    with pytest.raises(RunError, match="cannot be a run's name"):
        place(make_config(), name=name)


@pytest.mark.parametrize("path", ["", "a\0b", "a\nb"])
def test_paths_that_no_folder_can_have_are_refused(make_config, path):
    with pytest.raises(RunError, match="cannot be a folder"):
        place(make_config(), run_dir=path)


def test_a_name_and_a_folder_are_one_too_many(make_config):
    with pytest.raises(RunError, match="Keep one"):
        place(make_config(), run_dir="x", name="y")


def test_the_folder_holds_what_it_says(tmp_path, make_config):
    path = tmp_path / "deep" / "run"
    with claimed(path, make_config(), FACTS):
        assert files(path) == [".lock", "checkpoints", "config.toml", "env.json", "samples"]
    assert load_file(path / "config.toml") == make_config()
    assert json.loads((path / "env.json").read_text()) == FACTS


def test_another_configuration_is_refused_with_the_keys(tmp_path, make_config):
    with claimed(tmp_path, make_config(), FACTS):
        pass
    before = (tmp_path / "config.toml").read_bytes()
    other = make_config(width=32, learning_rate=0.5, blocks={"rg_lru": {"gate_blocks": 4}})
    with pytest.raises(RunError) as caught, claimed(tmp_path, other, FACTS):
        pass
    for line in (
        "model.width: 16 there, 32 asked for",
        "optimizer.learning_rate: 0.003 there, 0.5 asked for",
        "model.blocks.rg_lru.gate_blocks: 2 there, 4 asked for",
        "model.blocks.local_mqa.head_dim: 8 there, default asked for",
    ):
        assert line in str(caught.value)
    assert (tmp_path / "config.toml").read_bytes() == before
    assert differences(make_config(), make_config()) == []


def test_other_text_is_refused(tmp_path, make_config):
    with claimed(tmp_path, make_config(), FACTS):
        pass
    with (
        pytest.raises(RunError, match="has changed since the run began"),
        claimed(tmp_path, make_config(), {"data": {"corpus": "shakespeare", "digest": "xyz"}}),
    ):
        pass
    (tmp_path / "env.json").write_text("{")
    with pytest.raises(RunError, match=r"env.json cannot be read"), claimed(tmp_path, make_config(), FACTS):
        pass


def test_a_folder_with_other_files_is_left_alone(tmp_path, make_config):
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(RunError, match=r"holds thesis\.txt"), claimed(tmp_path, make_config(), FACTS):
        pass
    assert files(tmp_path) == ["thesis.txt"]


@pytest.mark.parametrize("name", ["checkpoints", "metrics.jsonl", "samples", "config.toml", ".lock"])
def test_links_out_of_the_folder_are_refused(tmp_path, make_config, name):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run = tmp_path / "run"
    run.mkdir()
    (run / name).symlink_to(elsewhere)
    with pytest.raises(RunError, match="is a link"), claimed(run, make_config(), FACTS):
        pass
    assert files(elsewhere) == []


def test_two_runs_at_once_are_refused_and_a_dead_process_holds_nothing(tmp_path, make_config):
    holder = (
        "import fcntl, sys, time; lock = open(sys.argv[1], 'a+'); fcntl.flock(lock, fcntl.LOCK_EX);"
        "lock.write('process 123'); lock.flush(); print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", holder, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(RunError, match=r"Another process \(process 123\) trains"),
            claimed(tmp_path, make_config(), FACTS),
        ):
            pass
        process.kill()
    with claimed(tmp_path, make_config(), FACTS):
        assert (tmp_path / ".lock").read_text() == f"process {os.getpid()}\n"
        with pytest.raises(RunError, match="Another process"), claimed(tmp_path, make_config(), FACTS):
            pass


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path, make_config):
    (tmp_path / "run").write_text("")
    with (
        pytest.raises(RunError, match="cannot be written to"),
        claimed(tmp_path / "run", make_config(), FACTS),
    ):
        pass


def test_the_latest_run_is_the_one_written_last(tmp_path, monkeypatch, make_config):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="no run yet"):
        find("latest")
    for number, name in enumerate(["b", "a"]):
        with claimed(place(make_config(), name=name), make_config(), FACTS) as path:
            os.utime(path / "config.toml", (number, number))
    assert str(find("latest")) == "runs/a"
    with pytest.raises(RunError, match="Runs here: runs/a, runs/b"):
        find("c")
    with pytest.raises(RunError, match="no run directory"):
        find("a\0b")


LINES = [{"kind": "train", "step": step, "loss": 0.1 * step} for step in range(1, 6)]


def written(path, lines=LINES):
    with MetricsWriter(path, step=0) as metrics:
        for line in lines:
            metrics.write(line["kind"], line["step"], {"loss": line["loss"]})
    return path


def test_metrics_come_back_bit_for_bit(tmp_path):
    assert read_metrics(written(tmp_path / "m")) == LINES


def test_what_is_not_finite_is_null(tmp_path):
    path = written(tmp_path / "m", [{"kind": "train", "step": 1, "loss": float("nan")}])
    assert json.loads(path.read_text(), parse_constant=pytest.fail)["loss"] is None


@pytest.mark.parametrize("step", [0, 3, 5])
def test_lines_after_the_restored_step_are_dropped(tmp_path, step):
    path = written(tmp_path / "m")
    with MetricsWriter(path, step=step):
        pass
    assert read_metrics(path) == LINES[:step]


def test_a_last_line_cut_anywhere_is_dropped(tmp_path):
    whole = written(tmp_path / "m").read_bytes()
    last = whole[:-1].rindex(b"\n") + 1
    for end in range(last, len(whole)):
        (tmp_path / "m").write_bytes(whole[:end])
        assert read_metrics(tmp_path / "m") == LINES[:-1]
        with MetricsWriter(tmp_path / "m", step=5) as metrics:
            metrics.write("train", 5, {"loss": LINES[-1]["loss"]})
        assert (tmp_path / "m").read_bytes() == whole


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    path = written(tmp_path / "m")
    path.write_bytes(path.read_bytes().replace(b'"step":2', b'"step":2x'))
    with pytest.raises(RunError, match="Line 2 of the metrics"):
        read_metrics(path)
