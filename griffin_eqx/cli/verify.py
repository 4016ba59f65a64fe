"""`griffin verify`: holds a block or a scan to the laws and shows the smallest counterexample."""

import dataclasses
import faulthandler
import functools
import importlib
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from griffin_eqx import registry
from griffin_eqx.cli.arguments import Flag, Number, Text, parse
from griffin_eqx.errors import GriffinError
from griffin_eqx.pattern import Pattern, nearest

if TYPE_CHECKING:
    from griffin_eqx.block import AbstractBlock
    from griffin_eqx.verify import ScoreBoard

THOROUGH = 1000


@dataclasses.dataclass(frozen=True)
class Verify:
    """Hold a block or a scan to the laws by random cases, and show the smallest one that breaks a law.

    A block: a name that `griffin blocks` lists, with or without options in brackets, `module:Class`,
    `FILE.py:Class`, or no name but `--plugin FILE`.
    A scan: `module:function` or `FILE.py:function`, called as scan(x, a, h0, reset).
    Exit code 0 only if all laws hold; 1 if one is broken.

    Attributes:
      what: What it is.
      name: Which one.
      options: Options as in a pattern, "window_size=8, kv_heads=2". Integers that no case would reach
        (window_size=1024) are made small unless given here.
      law: One law alone; may be repeated.
      thorough: 1000 cases a law, and programs as optimised as in training.
      examples: Cases a law.
      seed: Of the cases.
      complex: Scans: try Planar pairs beside real arrays.
      reverse: Scans: try both running directions.
      float32: Scans: try float32 alone, not bfloat16.
      json: Print one JSON object.
    """

    what: Annotated[Literal["block", "scan"], tyro.conf.Positional]
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]", help_behavior_hint="")] = ""
    options: Text = None
    law: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME", help_behavior_hint="")
    ] = ()
    thorough: Flag = False
    examples: Number = None
    seed: Annotated[int, tyro.conf.arg(metavar="N", help_behavior_hint="")] = 0
    complex: Flag = False
    reverse: Flag = False
    float32: Flag = False
    json: Flag = False


def run(argv: list[str]) -> int:
    """Runs the command."""
    switches = parse(Verify, argv, prog="griffin verify")
    if switches.examples is not None and switches.examples < 1:
        raise GriffinError(f"--examples {switches.examples}: must be at least 1.")
    if importlib.util.find_spec("hypothesis") is None:
        raise GriffinError("verify needs Hypothesis.\nInstall it: pip install 'griffin_eqx[verify]'.")
    # Hypothesis keeps files of its own, which have no place among the user's.
    os.environ.setdefault(
        "HYPOTHESIS_STORAGE_DIRECTORY", str(Path(tempfile.gettempdir()) / "griffin-hypothesis")
    )
    # XLA may end the process on an array without elements: then this says in which law.
    if sys.stderr is sys.__stderr__:
        faulthandler.enable()
    trials = _blocks(switches) if switches.what == "block" else [_scan(switches)]
    if not switches.thorough:
        compile_quickly()
    boards = [_try(switches, subject, judge) for subject, judge in trials]
    if switches.json:
        from griffin_eqx.verify.report import as_dict

        found = [as_dict(board) for board in boards]
        print(json.dumps(found[0] if len(found) == 1 else found, indent=2))
    return int(not all(board.ok for board in boards))


def compile_quickly() -> None:
    """Cases are small and programs many: optimising them takes longer than it saves.

    What is judged is the program that JAX traces; XLA's own optimisations are tried by `--thorough`.
    """
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    # Later ones do not know the flag, and an unknown flag ends the process.
    if jax.__version_info__ < (0, 11):
        given = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{given} --xla_cpu_use_fusion_emitters=false"


Trial = tuple[str, Callable[..., "ScoreBoard"]]
"""What is tried, and the function that tries it."""


def _blocks(switches: Verify) -> list[Trial]:
    from griffin_eqx.laws import LAWS

    _check_laws(switches.law, LAWS)
    if not switches.law or "placement" in switches.law:
        from griffin_eqx.sharding import virtual_devices
        from griffin_eqx.verify.placement_law import DEVICES

        virtual_devices(DEVICES)
    if switches.complex or switches.reverse or switches.float32:
        raise GriffinError("--complex, --reverse and --float32 are for scans.\nUse griffin verify scan ...")
    trials = []
    name, _, bracket = switches.name.partition("[")
    for block in _named_blocks(name):
        options = _block_options(
            block, ", ".join(filter(None, [bracket.removesuffix("]"), switches.options]))
        )
        trials.append((block.name, functools.partial(_verify_block, block, options)))
    return trials


def _verify_block(block: "type[AbstractBlock]", options: Mapping[str, Any], **arguments: Any) -> "ScoreBoard":
    from griffin_eqx.verify import verify_block

    return verify_block(block, options=options, **arguments)


def _named_blocks(name: str) -> "list[type[AbstractBlock]]":
    if ":" in name:
        return [_block_class(name)]
    if name:
        return [registry.load(name)]
    added = [entry for entry in registry.entries() if registry.is_added(entry)]
    if not added:
        raise GriffinError(
            "verify block needs a name, module:Class or --plugin FILE.\n"
            f"Blocks: {', '.join(entry.name for entry in registry.entries())}."
        )
    return [registry.load(entry.name) for entry in added]


def _block_class(name: str) -> "type[AbstractBlock]":
    private = registry.Registry(group="none")
    return private.add(_import(name))


def _block_options(block: "type[AbstractBlock]", text: str) -> dict[str, Any]:
    """The options as the block takes them, names and types checked."""
    if not text:
        return {}
    private = registry.Registry(group="none")
    private.add(block)
    plan = private.plan(f"{block.name}[{text}]")[0]
    given = {key for key, _ in Pattern.parse(f"{block.name}[{text}]").layers[0].options}
    return {name: getattr(plan.options, name) for name in given if hasattr(plan.options, name)}


def _scan(switches: Verify) -> Trial:
    name = switches.name
    if ":" not in name:
        raise GriffinError(
            f"verify scan needs module:function or FILE.py:function, got {name!r}.\n"
            "Try griffin verify scan griffin_kernels.linear_scan:linear_scan --complex --reverse."
        )
    from griffin_eqx.verify import SCAN_LAWS, verify_scan
    from griffin_eqx.verify.scan_subject import DTYPES, check_shapes, scan_subject

    _check_laws(switches.law, SCAN_LAWS)
    scan: Any = _import(name)
    if not callable(scan):
        raise GriffinError(f"{name} is no function.\nA scan is called as scan(x, a, h0, reset).")
    if switches.options:
        scan = functools.partial(scan, **dict(Pattern.parse(f"scan[{switches.options}]").layers[0].options))
    dtypes = ("float32",) if switches.float32 else DTYPES
    try:
        subject, _ = scan_subject(scan, complex=switches.complex, reverse=switches.reverse, dtypes=dtypes)
        check_shapes(subject)
    except TypeError as error:
        raise GriffinError(str(error)) from None
    return name, functools.partial(
        verify_scan, scan, complex=switches.complex, reverse=switches.reverse, dtypes=dtypes
    )


def _check_laws(names: tuple[str, ...], laws: Mapping[str, Any]) -> None:
    for name in names:
        if name not in laws:
            close = nearest(name, laws)
            guess = f"Did you mean {close}? " if close else ""
            raise GriffinError(f"there is no law {name!r}.\n{guess}Laws: {', '.join(laws)}.")


def _import(name: str) -> Any:
    """What `module:name` or `FILE.py:name` stands for."""
    home, _, attribute = name.rpartition(":")
    try:
        if home.endswith(".py"):
            module = _run_file(Path(home))
        else:
            if "" not in sys.path:
                sys.path.insert(0, "")  # as `python -m` does: the user's own modules lie where they stand
            module = importlib.import_module(home)
        return functools.reduce(getattr, attribute.split("."), module)
    except GriffinError:
        raise
    except Exception as error:
        raise GriffinError(
            f"{name} cannot be imported.\n{type(error).__name__}: {error}\n"
            "Write module:name with the module as Python imports it, or FILE.py:name."
        ) from error


def _run_file(path: Path) -> Any:
    if not path.is_file():
        raise GriffinError(f"there is no file {path}.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def _try(switches: Verify, subject: str, judge: Callable[..., "ScoreBoard"]) -> "ScoreBoard":
    from griffin_eqx.verify.board import Board
    from griffin_eqx.verify.verdict import EXAMPLES

    chosen = switches.law or None
    arguments = {
        "laws": chosen,
        "seed": switches.seed,
        "max_examples": switches.examples or (THOROUGH if switches.thorough else EXAMPLES),
    }
    if switches.json:
        return judge(**arguments)
    if switches.what == "block":
        from griffin_eqx.laws import LAWS as laws
    else:
        from griffin_eqx.verify import SCAN_LAWS as laws
    with Board(subject, list(chosen or laws)) as board:
        result = judge(tell=board.tell, **arguments)
    board.explain(result, _next(switches, subject, result))
    return result


def _next(switches: Verify, subject: str, result: "ScoreBoard") -> str:
    """What a user would type next."""
    name = (
        f'"{switches.name}"' if "[" in switches.name else switches.name or f"{subject}{_plugin_of(subject)}"
    )
    again = f"griffin verify {switches.what} {name}"
    if switches.options:
        again += f' --options "{switches.options}"'
    for flag in ("complex", "reverse", "float32"):
        again += f" --{flag}" * getattr(switches, flag)
    if result.broken:
        return f"{again} --law {result.broken[0].law.name} --seed {switches.seed}"
    if ":" in name and not switches.thorough:
        return f"{again} --thorough"
    if switches.what == "scan":
        return "griffin new block my_idea"
    return f'griffin train "({subject} {subject} local_mqa)@6"{_plugin_of(subject)}'


def _plugin_of(subject: str) -> str:
    """The option that brings in a block that is not installed."""
    try:
        block = registry.load(subject)
    except registry.RegistryError:
        return ""
    if not registry.is_added(registry.find(subject)):
        return ""
    from griffin_eqx.verify.regression import file_of

    return f" --plugin {file_of(block)}"
