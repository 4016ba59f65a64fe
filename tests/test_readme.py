"""Every command and snippet of the README runs, the long ones on a small budget."""

import re
import shlex
from pathlib import Path

import jax
import msgspec
import pytest

import griffin_eqx as gx
from griffin_eqx import registry
from griffin_eqx.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")

SMALL = {
    "--model.width": "32",
    "--model.lru_width": "32",
    "--model.num_heads": "1",
    "--data.seq_len": "16",
    "--data.batch_size": "2",
    "--train.steps": "2",
    "--train.eval_tokens": "64",
}
BUDGET = {
    "train": SMALL,
    "sample": {"--max-new-tokens": "4"},
    "eval": {"--max-tokens": "64", "--data.eval_lengths": "32"},
    "verify": {"--examples": "2", "--law": "options"},
    "bench": {key: value for key, value in SMALL.items() if not key.startswith("--train")}
    | {"--repeats": "1"},
}
"""Overrides by verb that replace what the README says or are added to it."""


def _blocks(language):
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for word, text in fences if word == language]


def _argv(line):
    """The arguments of one line of the README, on a small budget."""
    words = shlex.split(line)
    assert words.pop(0) == "griffin"
    others = ("convert", "info", "blocks", "tasks", "doctor", "new", "ablate")
    verb = next(word for word in words if word in BUDGET or word in others)
    if verb == "ablate" and "--dry-run" not in words:
        words.append("--dry-run")  # tests/ablation runs some
    budget = dict(BUDGET.get(verb, {}))
    if "scan" in words:
        budget["--law"] = "defaults"
    for option, value in budget.items():
        if option in words:
            words[words.index(option) + 1] = value
        else:
            words += [option, value]
    return words


def _snippet(first_line):
    return next(block for block in _blocks("python") if block.startswith(first_line))


@pytest.fixture(autouse=True)
def usual_promotion():
    """As users have it: Optax's schedules divide floats by integers, which strict promotion refuses."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "experiments").symlink_to(Path(__file__).parents[1] / "experiments")
    monkeypatch.setattr(registry.default, "_added", {})
    monkeypatch.setattr("griffin_eqx.cli.verify.compile_quickly", lambda: None)
    (tmp_path / "my_block.py").write_text(_snippet("# my_block.py"))
    return tmp_path


def test_every_command_runs(workplace, capsys):
    lines = [line for block in _blocks("bash") for line in block.replace("\\\n", "").splitlines()]
    assert len(lines) > 8
    for line in lines:
        assert main(_argv(line)) == 0, (line, capsys.readouterr())
        assert capsys.readouterr().out.strip(), line
    assert list(workplace.rglob("pyproject.toml"))


def test_the_error_is_as_shown(workplace, capsys):
    shown = next(block for block in _blocks("") if block.startswith("$ griffin"))
    command, *expected = shown.rstrip().splitlines()
    assert main(shlex.split(command)[2:]) == 2
    actual = capsys.readouterr().err
    assert actual.startswith("\n".join(expected).removesuffix(" ..."))


def test_the_python_session_runs(workplace, monkeypatch, capsys):
    def small(name):
        config = gx.presets.preset(name)
        model = msgspec.structs.replace(config.model, width=32, lru_width=32, num_heads=1)
        data = msgspec.structs.replace(config.data, seq_len=16, batch_size=2)
        train = msgspec.structs.replace(config.train, steps=2, eval_tokens=64)
        return msgspec.structs.replace(config, model=model, data=data, train=train)

    monkeypatch.setattr(gx, "preset", small)
    names: dict = {}
    exec(compile(_snippet("import griffin_eqx as gx"), "README.md", "exec"), names)
    assert len(names["layers"]) == 3
    assert len(names["layers"][0]["log_a"]) == len("To be")
    assert (workplace / "runs" / "first" / "config.toml").is_file()


def test_a_block_of_your_own_fits_sixty_lines_and_keeps_the_laws(workplace):
    source = _snippet("# my_block.py")
    assert len(source.splitlines()) <= 60
    names: dict = {}
    exec(compile(_snippet("from griffin_eqx.verify import law_tests"), "README.md", "exec"), names)
    for law in ("causal", "streaming", "packing", "padding"):
        gx.check_block(names["Leaky"], law)


def test_every_relative_link_leads_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    here = [link for link in links if "://" not in link]
    assert here
    assert all((Path(__file__).parents[1] / link).exists() for link in here)
