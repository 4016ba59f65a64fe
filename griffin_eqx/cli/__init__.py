"""The `griffin` command: one verb, one file. A verb's `--help` never waits for JAX.

Each module named in `COMMANDS` has `run(argv) -> int`, the exit code. What can go wrong is dealt with here:
errors meant for the user are printed without a traceback and become the exit code that they carry.
"""

import os
import sys

from griffin_eqx.errors import GriffinError

COMMANDS = {
    "train": "train a model; the same command again goes on with it",
    "ablate": "compare variants of a model on tasks, matched in size, over seeds, with a report",
    "sample": "write text with a trained model",
    "eval": "judge a trained model on a corpus, a file or its task",
    "convert": "carry weights to Hugging Face's format or DeepMind's, and back",
    "plan": "tell whether a model fits on TPUs that are not here, and what would bound it",
    "info": "show layers, parameters, FLOPs and caches of a model, before it is built",
    "report": "tell what an ablation came to: page, Markdown, CSV, figures",
    "blocks": "list the temporal-mixing blocks that a pattern can name",
    "tasks": "list what a model can be trained on and judged by",
    "verify": "hold a block or a scan to the laws, and show the smallest counterexample",
    "new": "lay out a block of your own: package, test, README",
    "doctor": "check this machine: versions, devices, blocks, a scan against its oracle",
    "bench": "measure speed on this machine",
}
"""Every verb with what it does."""

CODE_FROM_OUTSIDE = """\
Code from outside runs through three doors only: installed blocks and tasks that are named, `--plugin FILE` or
`verify module:name`, and `--config package.module:function`. Use them with code that you trust."""

INTERRUPTED, BROKEN_PIPE, BUG = 130, 141, 1


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Args:
      argv: The arguments behind `griffin`; those of the process when None.

    Returns:
      The exit code: 0 good, 1 a check failed, 2 usage, 3 data, 4 checkpoint, 5 diverged, 6 another process gone,
      130 interrupted.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    try:
        code = _dispatch([argument for argument in argv if argument != "--debug"])
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # the parser has said what it had to say
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more at its end, and would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except GriffinError as error:
        if debug:
            raise
        print(f"griffin: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        if debug:
            raise
        print(
            f"griffin: {type(error).__name__}: {error}\n"
            "This is not an error that griffin knows. `--debug` shows where it comes from.",
            file=sys.stderr,
        )
        return BUG


def _dispatch(argv: list[str]) -> int:
    argv, plugins = _take_plugins(argv)
    verb, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if verb in ("-h", "--help", "help"):
        print(_help())
        return 0
    if verb == "--version":
        from importlib.metadata import version

        print(f"griffin_eqx {version('griffin_eqx')}")
        return 0
    if verb not in COMMANDS:
        from griffin_eqx.pattern import nearest

        close = nearest(verb, COMMANDS)
        guess = f"Did you mean `griffin {close}`? " if close else ""
        raise GriffinError(f"there is no command {verb!r}.\n{guess}Commands: {', '.join(COMMANDS)}.")
    if os.environ.get("NO_COLOR"):
        os.environ.setdefault("PYTHON_TYRO_ANSI_CODES", "False")
    if plugins and not asks_help(rest):
        from griffin_eqx.plugin_file import add_plugin

        for path in plugins:
            add_plugin(path)
    from importlib import import_module

    run = import_module(f"griffin_eqx.cli.{verb}").run
    if not asks_help(rest):
        return run(rest)
    try:
        code = run(rest)
    except SystemExit as stop:  # how parsers end their help
        code = int(bool(stop.code))
    print(f"\n{CODE_FROM_OUTSIDE}")
    return code


def asks_help(argv: list[str]) -> bool:
    """Whether the arguments ask for help."""
    return "-h" in argv or "--help" in argv


def _take_plugins(argv: list[str]) -> tuple[list[str], list[str]]:
    """The arguments without `--plugin FILE`, and the files."""
    rest, files = [], []
    arguments = iter(argv)
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if option != "--plugin":
            rest.append(argument)
            continue
        file = value if equals else next(arguments, "")
        if not file or file.startswith("--"):
            raise GriffinError("--plugin needs a file.\nWrite for example --plugin my_block.py.")
        files.append(file)
    return rest, files


def _help() -> str:
    verbs = "\n".join(f"  {verb:<9} {summary}" for verb, summary in COMMANDS.items())
    return f"""\
usage: griffin COMMAND [OPTIONS]

{verbs}

`griffin COMMAND --help` tells more. Options of every command:
  --plugin FILE  run a Python file and add the blocks and tasks that it defines; may be repeated
  --debug        show the traceback of an error
  --help, --version

{CODE_FROM_OUTSIDE}

Exit codes: 0 good, 1 a check failed, 2 usage, 3 data, 4 checkpoint, 5 diverged, 6 another process gone,
130 interrupted."""
