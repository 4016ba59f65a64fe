"""What all commands share: quick help, exit codes, errors without a traceback."""

import os
import subprocess
import sys
import types

import pytest

from griffin_eqx import cli
from griffin_eqx.errors import CheckpointError, DivergedError

pytestmark = pytest.mark.core

VERBS = list(cli.COMMANDS)

HELP = """
import contextlib, io, sys, time
start = time.process_time()
from griffin_eqx.cli import main
with contextlib.redirect_stdout(io.StringIO()) as out:
    code = main(sys.argv[1:])
heavy = [name for name in ("jax", "equinox", "numpy", "grain", "orbax") if name in sys.modules]
print(code, heavy, out.getvalue() > '', time.process_time() - start < 5)
"""


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    "argv", [["--help"], *([verb, "--help"] for verb in VERBS), ["blocks"], ["tasks"]], ids=" ".join
)
def test_help_never_waits_for_jax(argv):
    answer = python("-c", HELP, *argv)
    assert answer.stdout == "0 [] True True\n", answer.stderr


def test_help_names_every_verb_and_the_doors_for_code(griffin):
    code, out, _ = griffin("--help")
    assert code == 0
    assert all(f"  {verb}" in out for verb in VERBS)
    assert "--plugin FILE" in out
    assert "--config package.module:function" in out
    assert griffin() == (code, out, "")


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_says_that_code_from_outside_runs(griffin, verb):
    code, out, _ = griffin(verb, "--help")
    assert code == 0
    assert f"griffin {verb}" in out
    assert "Code from outside" in out


def test_the_module_is_the_command():
    answer = python("-m", "griffin_eqx", "--version")
    assert (answer.returncode, answer.stdout) == (0, "griffin_eqx 0.1.0\n")


def test_an_unknown_verb_is_refused_with_the_nearest(griffin):
    assert griffin("trian") == (
        2,
        "",
        "griffin: there is no command 'trian'.\n"
        f"Did you mean `griffin train`? Commands: {', '.join(VERBS)}.\n",
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["info", "rg_lru*"], "^"),
        (["info", "griffin-14"], "Or did you mean the preset griffin-14b?"),
        (["info", "none.toml"], "none.toml: cannot be read."),
        (["info", "--model.width", "0"], "command line: model.width: Expected `int` >= 1"),
        (["info", "--model.width", "wide"], "--model.width"),
        (["info", "--model.wdth", "3"], "--model.width INT"),
        (["info", "--model.blocks.L.window_size"], "--model.blocks.L.window_size needs a value."),
        (["info", "--model.blocks.L", "3"], "write --model.blocks.NAME.KEY VALUE"),
        (["info", "--model.blocks.local.window_size", "3"], "model.blocks.local: there is no block named"),
        (["info", "--config", "json"], "write package.module:function."),
        (["info", "--config", "json:loads"], "running it failed.\nTypeError"),
        (["info", "--config", "builtins:dict"], "it returned a dict, not a griffin_eqx.Config."),
        (["info", "R", "--config", "builtins:dict"], "both MODEL (R) and --config builtins:dict are given."),
        (["info", "--seq-len", "0"], "--seq-len 0: must be at least 1."),
        (["info", "--train.precision", "f31"], "precision='f31': cannot read 'f31'."),
        (["info", "rg_lru[gate_blocks=5]"], "lru_width=256 cannot be cut into gate_blocks=5 equal blocks"),
        (["info", "a", "b"], "Unrecognized options: b"),
        (["blocks", "--plugin"], "--plugin needs a file."),
        (["blocks", "--plugin", "none.py"], "--plugin none.py: there is no such file."),
        (["new", "block", "../up"], "'../up' cannot be a block's name."),
        (["new", "block", "rg-lru"], "the block name 'rg_lru' is taken by griffin_eqx"),
        (["new", "block", "eqx"], "a package griffin_eqx is installed already."),
        (["sample", "none"], "This is no run directory"),
        (["sample", "--top-k", "0", "--num", "0"], "--top-k, --num: out of range."),
        (["doctor", "now"], "Unrecognized options: now"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_a_few_lines_with_exit_code_2(griffin, argv, message):
    code, out, err = griffin(*argv)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 20


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CheckpointError("lost"), 4),
        (DivergedError("lost"), 5),
        (KeyboardInterrupt(), 130),
        (RuntimeError("lost"), 1),
        (SystemExit(3), 3),
    ],
)
def test_errors_become_exit_codes_and_only_debug_shows_where_they_are_from(griffin, monkeypatch, error, code):
    def fail(argv):
        raise error

    monkeypatch.setitem(sys.modules, "griffin_eqx.cli.info", types.SimpleNamespace(run=fail))
    answer = griffin("info")
    assert answer.code == code
    assert ("lost" in answer.err) == bool(error.args and error.args[0] == "lost")
    assert "Traceback" not in answer.err
    if "lost" in answer.err:
        with pytest.raises(type(error)):
            griffin("info", "--debug")


def test_a_closed_pipe_is_quiet():
    command = f"{sys.executable} -m griffin_eqx info --help | true; echo ${{PIPESTATUS[0]}}"
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert answer.stderr == ""
    assert answer.stdout in ("141\n", "0\n")  # 0 where the pipe took all before it was closed


def test_no_color_is_obeyed():
    code = "import pty, sys; pty.spawn([sys.executable, '-m', 'griffin_eqx', *sys.argv[1:]])"
    for argv in (["blocks"], ["blocks", "--help"]):
        coloured = python("-c", code, *argv, TERM="xterm", NO_COLOR="").stdout
        plain = python("-c", code, *argv, TERM="xterm", NO_COLOR="1").stdout
        assert "\x1b[" in coloured
        assert "block" in plain
        assert "\x1b[3" not in plain  # a colour; bold is none


def test_a_command_runs_without_color():
    done = python("-m", "griffin_eqx", "blocks", NO_COLOR="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b[" not in done.stdout
