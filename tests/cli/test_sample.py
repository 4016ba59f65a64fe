"""`griffin sample` writes text, the same for the same seed, and lets no model steer the terminal."""

import io
import json
import sys
import types

import jax
import pytest

import griffin_eqx as gx
from griffin_eqx.cli.sample import printable
from griffin_eqx.config import ModelConfig
from griffin_eqx.data import ByteTokenizer
from griffin_eqx.model import LanguageModel
from griffin_eqx.sampling import Engine

pytestmark = pytest.mark.core


@pytest.fixture
def run(monkeypatch):
    """A run whose model is fresh."""
    config = ModelConfig(
        pattern="local_mqa[head_dim=8,window_size=4]", width=16, mlp_width=16, vocab_size=257
    )
    model = jax.jit(lambda: LanguageModel.init(config, key=jax.random.key(0)))()
    loaded = types.SimpleNamespace(model=model, tokenizer=ByteTokenizer(), config=gx.Config(), step=0)
    asked = []

    def load(run_dir, *, decoding):
        assert decoding
        asked.append(str(run_dir))
        return loaded

    monkeypatch.setitem(sys.modules, "griffin_eqx.training.load", types.SimpleNamespace(load=load))
    return asked


def test_the_newest_run_is_taken_and_the_prompt_stands_before_its_continuation(griffin, run):
    code, out, err = griffin("sample", "--prompt", "To be", "--max-new-tokens", "16")
    assert (code, err, run) == (0, "", ["latest"])
    assert out.startswith("To be")


def test_a_seed_repeats_and_texts_differ(griffin, run):
    argv = ["sample", "runs/mine", "--num", "2", "--max-new-tokens", "16", "--json", "--seed", "7"]
    first = griffin(*argv)
    assert griffin(*argv) == first
    rows = [json.loads(line) for line in first.out.splitlines()]
    assert [row["seed"] for row in rows] == [7, 8]
    assert rows[0]["tokens"] != rows[1]["tokens"]
    assert rows[0]["text"] == ByteTokenizer().decode(rows[0]["tokens"])
    assert run == ["runs/mine"] * 2


def test_temperature_zero_writes_what_is_likeliest(griffin, run):
    rows = [
        json.loads(line)
        for line in griffin(
            "sample", "--num", "2", "--max-new-tokens", "16", "--temperature", "0", "--json"
        ).out.splitlines()
    ]
    assert rows[0]["tokens"] == rows[1]["tokens"]


def test_what_a_model_writes_cannot_steer_the_terminal():
    assert printable("a\n\tb\x1b[2Jc\x9b\u202ed\r") == "a\n\tb\ufffd[2Jc\ufffd\ufffdd\ufffd"


def test_several_prompts_from_a_file_are_each_written_as_if_alone(griffin, run, tmp_path):
    (tmp_path / "lines.txt").write_text("To be\n\nné\n")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "To be"}\n{"prompt": ""}\n\n{"prompt": "n\\u00e9"}\n')
    common = [
        "--max-new-tokens",
        "12",
        "--json",
        "--seed",
        "5",
        "--top-p",
        "0.9",
        "--repetition-penalty",
        "1.1",
    ]
    for file in ("lines.txt", "rows.jsonl"):
        rows = [json.loads(line) for line in griffin("sample", "--prompts", file, *common).out.splitlines()]
        assert [row["prompt"] for row in rows] == ["To be", "", "né"]
        for i, row in enumerate(rows):
            alone = griffin("sample", "--prompt", row["prompt"], *common[:4], str(5 + i), *common[5:])
            assert json.loads(alone.out)["tokens"] == row["tokens"]


def test_a_prompt_comes_from_a_file_or_standard_input(griffin, run, tmp_path, monkeypatch):
    (tmp_path / "prompt.txt").write_text("To be\nor not")
    argv = ["--max-new-tokens", "8", "--json"]
    rows = [json.loads(griffin("sample", "--prompt-file", "prompt.txt", *argv).out)]
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(b"To be\nor not")))
    rows.append(json.loads(griffin("sample", "--prompt-file", "-", *argv).out))
    assert rows[0] == rows[1]
    assert rows[0]["prompt"] == "To be\nor not"


def test_streamed_texts_are_those_of_json_in_order(griffin, run):
    argv = ["sample", "--prompt", "né", "--num", "3", "--max-new-tokens", "40", "--seed", "2"]
    texts = [json.loads(line)["text"] for line in griffin(*argv, "--json").out.splitlines()]
    shown = [printable("né" + text) for text in texts]
    assert griffin(*argv).out == "\n\n---\n\n".join(shown) + "\n"


def test_what_was_written_stays_when_writing_is_interrupted(griffin, run, monkeypatch):
    stream = Engine.stream

    def interrupted(*arguments, **options):
        for number, piece in enumerate(stream(*arguments, **options)):
            if number == 4:
                raise KeyboardInterrupt
            yield piece

    argv = ["sample", "--prompt", "To be", "--max-new-tokens", "60", "--seed", "2"]
    whole = griffin(*argv).out
    monkeypatch.setattr(Engine, "stream", interrupted)
    code, out, _ = griffin(*argv)
    assert code == 130
    assert len("To be") < len(out.rstrip("\n")) < len(whole)
    assert whole.startswith(out.rstrip("\n").rstrip("\ufffd"))


def test_a_saved_session_goes_on_as_if_it_had_never_stopped(griffin, run):
    common = ["--seed", "3", "--json"]
    whole = json.loads(griffin("sample", "--prompt", "To be", "--max-new-tokens", "20", *common).out)
    first = griffin("sample", "--prompt", "To be", "--max-new-tokens", "8", "--save-session", "kept", *common)
    second = griffin("sample", "--session", "kept", "--max-new-tokens", "12", *common)
    assert json.loads(first.out)["tokens"] + json.loads(second.out)["tokens"] == whole["tokens"]


def test_beams_and_best_of_show_the_likeliest(griffin, run):
    beams = griffin("sample", "--beams", "3", "--num", "3", "--max-new-tokens", "6", "--json")
    rows = [json.loads(line) for line in beams.out.splitlines()]
    means = [row["log_probability"] / (len(row["tokens"]) + row["finished"]) for row in rows]
    assert means == sorted(means, reverse=True)
    best = json.loads(griffin("sample", "--best-of", "4", "--max-new-tokens", "6", "--json").out)
    drawn = griffin("sample", "--num", "4", "--max-new-tokens", "6", "--json").out.splitlines()
    assert best["log_probability"] in [json.loads(line)["log_probability"] for line in drawn]


def test_over_a_mesh_the_texts_are_those_of_one_device(griffin, run):
    argv = ["sample", "--prompt", "To be", "--max-new-tokens", "9", "--num", "2", "--seed", "4"]
    code, out, err = griffin(*argv, "--mesh", "data=2,model=2")
    assert (code, out, err) == griffin(*argv)
    assert out.startswith("To be")


def test_verbose_tells_what_is_compiled(griffin, run):
    err = griffin("sample", "--max-new-tokens", "2", "--verbose", "--num", "5").err
    assert "compiled decode 5 rows in " in err
    assert "tokens/s" in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--beams", "0"], "--beams: out of range."),
        (["--beams", "2", "--num", "3"], "--num 3 texts out of --beams 2."),
        (["--beams", "2", "--best-of", "3"], "--beams and --best-of are given."),
        (["--prompt", "a", "--prompts", "b"], "--prompt and --prompts are given."),
        (["--prompts", "nowhere"], "The prompt cannot be read: No such file or directory."),
        (["--top-p", "2"], "top_p=2.0 must be above 0 and at most 1."),
        (["--stop", "ab"], "--stop 'ab': it is 2 tokens of the tokenizer bytes, and a stop is one."),
        (["--session", "nowhere"], "The session cannot be read."),
        (
            ["--mesh", "data=2"],
            "The mesh data=2 cannot divide these axes:\n  texts written at once: 1 over data=2",
        ),
        (
            ["--mesh", "data=2", "--beams", "3"],
            "The mesh data=2 cannot divide these axes:\n  --beams: 3 over data=2",
        ),
        (["--mesh", "model=32"], "The mesh model=32 has 32 devices and this program 8."),
        (["--prompts", "bad.jsonl"], 'This line is no JSON object with a text named "prompt".'),
    ],
)
def test_a_mistake_is_named_without_a_traceback(griffin, run, tmp_path, argv, message):
    (tmp_path / "bad.jsonl").write_text('{"prompt": 3}\n')
    code, out, err = griffin("sample", *argv)
    assert (code, out) == (4 if "--session" in argv else 2, "")
    assert err.startswith(f"griffin: {message}")
