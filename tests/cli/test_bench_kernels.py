"""`griffin bench kernels`: usage errors, and the table of what the real compiler made."""

import json
from typing import ClassVar

import pytest

from griffin_eqx.aot import environment
from griffin_eqx.aot.report import KernelReading, LoopReading, Reading, Result


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Choose one or more of v3, v5e, v5p, v6e"),
        (("--target", "v5"), "Did you mean v5"),
        (("--target", "v5e", "--dtype", "f32"), "Did you mean float32"),
        (("--target", "v5e", "--shape", "8,2048"), "Give batch, length and width"),
        (("--target", "v5e", "--shape", "8,0,1"), "Give batch, length and width"),
        (("--target", "v5e", "--kernel", "linear_scam"), "Did you mean linear_scan?"),
        (("--target", "v5e", "--implementation", "palas_tpu"), "there is no 'palas_tpu'"),
    ],
)
def test_a_mistake_is_answered_with_what_would_be_right(griffin, monkeypatch, arguments, said):
    monkeypatch.setattr(environment, "python", lambda: None)
    code, out, err = griffin("bench", "kernels", *arguments)
    assert (code, out) == (2, "")
    assert said in err


def test_without_the_compiler_it_says_how_to_get_it(griffin, monkeypatch, tmp_path):
    monkeypatch.setenv(environment.OVERRIDE, str(tmp_path / "nothing"))
    code, _, err = griffin("bench", "kernels", "--target", "v5e")
    assert code == 2
    assert "griffin bench kernels --setup" in err


@pytest.mark.xdist_group("aot")
@pytest.mark.skipif(environment.unsupported() is not None, reason=str(environment.unsupported()))
def test_the_real_compiler_answers(griffin):
    what = (
        "--target",
        "v5e,v6e",
        "--kernel",
        "linear_scan",
        "--implementation",
        "xla",
        "--shape",
        "2,64,256",
    )
    code, out, err = griffin("bench", "kernels", *what, "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert answer["compiler"] == {name: environment.pins()[name] for name in ("jax", "libtpu")}
    assert [(r["target"], r["direction"]) for r in answer["results"]] == [
        (target, direction) for target in ("v5e", "v6e") for direction in ("forward", "backward")
    ]
    for result in answer["results"]:
        assert result["error"] is None
        assert result["words"] >= result["limit_words"]


class FakeCompiler:
    """Answers as the compiler would: one kernel that is at its limit, and `associative` fails."""

    versions: ClassVar = {"jax": "1", "libtpu": "2"}

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        pass

    def compile(self, job):
        if job.implementation == "associative":
            return Result(job, error="RuntimeError: out of registers")
        words = round((job.limit_words or 1) * job.elements * job.word_bytes)
        kernel = KernelReading("scan", words, words, (LoopReading(0, 53, 1),), 53, 53)
        reading = Reading(
            relayouts=("copy.1",),
            temporary_bytes=10**6,
            argument_bytes=0,
            output_bytes=0,
            moved_bytes=words,
            xla_bytes=0.0,
            xla_cycles=0,
            kernels=(kernel,),
            compile_seconds=0.5,
        )
        return Result(job, reading)


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(environment, "python", lambda: None)
    monkeypatch.setattr("griffin_eqx.aot.session.Compiler", FakeCompiler)


def test_the_table_shows_every_figure_and_the_next_command(griffin, fake):
    code, out, err = griffin("bench", "kernels", "--target", "v5e", "--implementation", "xla")
    assert code == 0, err
    row = next(line for line in out.splitlines() if line.startswith("linear_scan[complex]"))
    # [8, 2048, 2560] in float32: 6 words at 819 GB/s take 1.229 ms.
    assert row.split()[1:] == ["xla", "forward", "1", "6.00", "1.00", "53", "1.0", "1.229", "0.000", "0.5"]
    assert "next: griffin bench kernels --target v3 --dtype bfloat16" in out
    assert "linear_scan xla forward float32 v5e" in err


def test_a_kernel_that_does_not_compile_is_shown_and_the_exit_code_is_1(griffin, fake):
    code, out, _ = griffin("bench", "kernels", "--target", "v5e,v6e", "--kernel", "linear_scan")
    assert code == 1
    assert out.count("FAILED") == 4
    assert "out of registers" in out
    assert "--kernel linear_scan --implementation associative" in out
    code, out, _ = griffin("bench", "kernels", "--target", "v5e", "--kernel", "linear_scan", "--json")
    assert code == 1
    assert [bool(result["error"]) for result in json.loads(out)["results"]].count(True) == 2
