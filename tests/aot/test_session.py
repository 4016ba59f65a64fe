"""A job that fails, or takes the compiler's process down, is reported; the jobs behind it still run."""

import sys
from pathlib import Path

import pytest

from griffin_eqx.aot import environment, session
from griffin_eqx.aot.report import Job
from griffin_eqx.errors import GriffinError

CHILD = """\
import json, os, sys, time
print(json.dumps({"versions": {"jax": "1", "libtpu": "2"}}), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    kind = job["case"]
    if kind == "abort":
        print("F1 Check failed: no such register", file=sys.stderr, flush=True)
        os.abort()
    if kind == "leave":
        sys.exit(7)
    if kind == "hang":
        time.sleep(60)
    if kind == "raise":
        print(json.dumps({"error": "ValueError: no"}), flush=True)
        continue
    words = {"relayouts": [], "temporary_bytes": 0, "argument_bytes": 0, "output_bytes": 0, "moved_bytes": 96,
             "xla_bytes": 0.0, "xla_cycles": 0, "kernels": [], "compile_seconds": 0.1}
    print(json.dumps({"reading": words}), flush=True)
"""


@pytest.fixture
def child(tmp_path, monkeypatch):
    """A child that needs no TPU compiler."""
    path = tmp_path / "child.py"
    path.write_text(CHILD)
    monkeypatch.setattr(session, "CHILD", path)
    monkeypatch.setattr(environment, "python", lambda: Path(sys.executable))
    return path


def _job(case):
    return Job(
        case=case,
        implementation="xla",
        direction="forward",
        dtype="float32",
        shape=(1, 2, 4),
        target="v5e",
        limit_words=3.0,
    )


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("raise", "ValueError: no"),
        ("abort", "the compiler's process ended with signal SIGABRT: F1 Check failed: no such register"),
        ("leave", "the compiler's process ended with exit code 7: it said nothing"),
    ],
)
def test_a_job_that_fails_is_reported_and_the_next_one_runs(child, case, reason):
    results = list(session.compile_all([_job("good"), _job(case), _job("good")]))
    assert [result.error for result in results] == [None, reason, None]


def test_a_job_that_hangs_is_stopped_and_the_next_one_runs(child):
    with session.Compiler(seconds=1.0) as compiler:
        assert compiler.compile(_job("good")).error is None
        assert "no answer within 1 s" in str(compiler.compile(_job("hang")).error)
        assert compiler.compile(_job("good")).error is None


def test_a_child_that_does_not_start_is_an_error_that_says_what_to_do(child):
    child.write_text("raise SystemExit('no module named jax')")
    with session.Compiler() as compiler, pytest.raises(GriffinError) as raised:
        compiler.compile(_job("good"))
    assert "the TPU compiler does not start: the compiler's process ended with exit code 1" in str(
        raised.value
    )
    assert "griffin bench kernels --setup" in str(raised.value)


def test_words_and_times_follow_from_the_bytes(child):
    (result,) = session.compile_all([_job("good")])
    assert (result.words, result.ratio) == (96 / 8 / 4, 1.0)
    assert result.seconds == 96 / 819e9
