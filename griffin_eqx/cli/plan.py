"""`griffin plan`: does it fit on machines that are not here, and what would bound it."""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import tyro

from griffin_eqx.cli.arguments import Flag, Number, Text
from griffin_eqx.cli.configure import ModelSwitches, configure
from griffin_eqx.config import Config
from griffin_eqx.errors import GriffinError
from griffin_eqx.units import binary, si

if TYPE_CHECKING:
    from rich.table import Table

    from griffin_eqx.planning.verdict import Plan

JobName = Annotated[Literal["train", "decode"], tyro.conf.arg(help_behavior_hint="")]


@dataclasses.dataclass(frozen=True)
class PlanSwitches(ModelSwitches):
    """Compile a training or decoding step for a machine that is not here, and tell whether it fits and what bounds it.

    The real TPU compiler does it, with no TPU, in an environment of its own made once with --setup. Nothing is run:
    times are the least possible, from what the compiled program computes, moves and sends. Exit code 1 if it does not
    fit. docs/planning.md says how to read the answer.

    Attributes:
      target: The machine: a slice such as v5p:4x4x8, v5e:4x4, v6e:8x8, or cpu:8 for virtual devices.
      mesh: How its devices are laid out, such as data=16,model=8.
      batch: Rows of a batch; data.batch_size when left out.
      seq_len: Tokens of a row; data.seq_len when left out. In decoding, tokens that the caches hold.
      job: train, or decode: one token for each row.
      search: Try the meshes of the machine, and rank them.
      json: Print one JSON object.
      setup: Make the compiler's environment: 0.3 GB to download, 1.1 GB on disk.
    """

    target: Text = None
    mesh: Text = None
    batch: Number = None
    seq_len: Number = None
    job: JobName = "train"
    search: Flag = False
    json: Flag = False
    setup: Flag = False


def run(argv: list[str]) -> int:
    """Runs the command."""
    config, switches = configure(argv, PlanSwitches, prog="griffin plan")
    if switches.setup:
        from griffin_eqx.aot import environment

        environment.set_up(lambda text: print(text, file=sys.stderr, flush=True))
        if switches.target is None:
            print(
                "next: griffin plan griffin-100m --target v5e:2x4 --mesh data=8 --batch 32", file=sys.stderr
            )
            return 0
    config = _sized(config, switches)
    from griffin_eqx.mesh import parse_mesh
    from griffin_eqx.planning.targets import parse_target

    if switches.target is None:
        raise GriffinError(
            "--target: for which machine?\n  A slice of TPUs such as v5p:4x4x8, v5e:4x4 or v6e:8x8, or cpu:8.\n"
            "  griffin plan griffin-100m --target v5e:2x4 --mesh data=8 --batch 32"
        )
    target = parse_target(switches.target)
    mesh = None if switches.mesh is None else parse_mesh(switches.mesh)
    if (mesh is None) != switches.search:
        raise GriffinError(
            f"--mesh: how are the {target.num_devices} devices of {target} laid out?\n"
            f"  Name a mesh, as in --mesh data={target.num_devices}, or let --search find one; not both.\n"
            "  `griffin info MODEL --mesh ...` shows what a mesh does to the parameters."
        )
    from griffin_eqx.planning.plan import Planner, check
    from griffin_eqx.planning.verdict import as_dict

    named = (switches.source or "").lower()
    if mesh is not None:
        check(config, mesh, target, job=switches.job)
    with Planner(target) as planner, _progress(quiet=switches.json) as begin:
        if mesh is None:
            from griffin_eqx.planning.search import search

            plans = search(planner, config, job=switches.job, model=named or None, begin=begin)
        else:
            plans = [planner.plan(config, mesh, job=switches.job, model=named or None, begin=begin)]
    if switches.json:
        answers = [as_dict(plan) for plan in plans]
        print(json.dumps(answers if switches.search else answers[0], indent=2))
    elif switches.search:
        _show_ranking(plans, switches)
    else:
        _show(plans[0], switches)
    return int(not any(plan.fits is not False for plan in plans))


def _sized(config: Config, switches: PlanSwitches) -> Config:
    given = {"batch_size": switches.batch, "seq_len": switches.seq_len}
    for name, value in given.items():
        if value is not None and value < 1:
            option = "--batch" if name == "batch_size" else "--seq-len"
            usual = getattr(config.data, name)
            raise GriffinError(
                f"{option} {value}: must be at least 1.\n  Left out, it is the model's own: {usual}."
            )
    data = msgspec.structs.replace(config.data, **{k: v for k, v in given.items() if v is not None})
    return msgspec.structs.replace(config, data=data)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Tells on standard error what is compiled, and for how long."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    begun: list[tuple[str, float]] = []
    start = time.perf_counter()

    def ended() -> None:
        if begun and not quiet:
            what, since = begun[-1]
            console.print(f"compiled {what}: {time.perf_counter() - since:.1f} s", style="dim", markup=False)

    if not console.is_terminal or quiet:

        def begin(what: str) -> None:
            ended()
            begun.append((what, time.perf_counter()))

        yield begin
        ended()
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as board:
        task = board.add_task("compiling", total=None)

        def show(what: str) -> None:
            ended()
            begun.append((what, time.perf_counter()))
            all_of_it = f" (all: {time.perf_counter() - start:.0f} s)" if len(begun) > 1 else ""
            board.reset(task, description=f"compiling {what}{all_of_it}")

        yield show
        ended()


def _show(plan: "Plan", switches: PlanSwitches) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    rows = f"{plan.batch_size:,} rows of {plan.seq_len:,} tokens"
    what = f"one {'update' if plan.job == 'train' else 'token a row'}, {rows}"
    console.print(f"{plan.model} on {plan.target} as {_mesh(plan)}: {what}", style="bold", markup=False)
    console.print()
    console.print(
        _verdict(plan), style="bold green" if plan.fits else "bold red" if plan.fits is False else ""
    )
    console.print()
    console.print(_memory(plan))
    if plan.bounds:
        console.print()
        console.print(_times(plan))
    console.print()
    console.print(_network(plan))
    console.print()
    for line in plan.advice():
        console.print(f"-> {line}", markup=False, soft_wrap=True)
    for layer in plan.layers:
        if layer.error:
            console.print(
                f"one layer {layer.kind} does not compile: {layer.error}", markup=False, soft_wrap=True
            )
    seconds = sum(
        reading.trace_seconds + reading.compile_seconds
        for reading in (plan.reading, *(layer.reading for layer in plan.layers))
        if reading
    )
    versions = ", ".join(f"{name} {version}" for name, version in plan.versions.items())
    console.print(
        f"compiled in {seconds:.0f} s ({versions}); the step alone: traced in {plan.reading.trace_seconds:.1f} s, "
        f"compiled in {plan.reading.compile_seconds:.1f} s",
        style="dim",
        soft_wrap=True,
    )
    console.print(f"next: {_next(plan, switches)}", markup=False, soft_wrap=True)


def _mesh(plan: "Plan") -> str:
    from griffin_eqx.mesh import MeshShape

    return str(MeshShape(*plan.mesh))


def _verdict(plan: "Plan") -> str:
    if plan.available_bytes is None:
        return f"compiles: {binary(plan.needed_bytes)} a device"
    if plan.fits:
        part = plan.needed_bytes / plan.available_bytes
        return f"fits: {binary(plan.needed_bytes)} of {binary(plan.available_bytes)} a chip ({part:.0%})"
    return f"does not fit: {binary(plan.needed_bytes)} a chip, which has {binary(plan.available_bytes)}"


def _table(*columns: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    return table


def _memory(plan: "Plan") -> "Table":
    table = _table("memory a chip" if plan.available_bytes else "memory a device", "bytes", "part")
    for kind, size in plan.bytes_by_kind.items():
        table.add_row(kind, binary(size), f"{size / plan.needed_bytes:.0%}")
    return table


def _times(plan: "Plan") -> "Table":
    chip = plan.chip
    assert chip is not None
    table = _table("least time of a step", "ms", "what it takes, a chip")
    amounts = {
        "compute": f"{si(plan.flops / plan.num_devices)}FLOP at {si(chip.flops_per_second)}FLOP/s",
        "memory": f"{binary(plan.reading.moved_bytes)} at {si(chip.memory_bytes_per_second)}B/s",
        "network": f"{binary(sum(one.sent_bytes for one in plan.reading.collectives))} sent",
    }
    for name, seconds in plan.bounds.items():
        bold = "bold" if name == plan.bottleneck else ""
        table.add_row(name, f"{1e3 * seconds:,.2f}", amounts[name], style=bold)
    table.add_row(
        "compiler's guess", f"{1e3 * (plan.compiler_seconds or 0):,.2f}", "without kernels", style="dim"
    )
    speed = plan.tokens_per_second
    if speed:
        table.add_row("", "", f"at most {si(speed)} tokens a second")
    return table


def _network(plan: "Plan") -> "Table":
    table = _table("sent by a chip" if plan.chip else "sent by a device", "over", "times", "bytes")

    def add(name: str, collectives, count: int) -> None:
        table.add_row(name, "", "", "", style="bold")
        for one in collectives:
            over = f"{','.join(one.axes)} ({one.devices})"
            table.add_row(f"  {one.kind}", over, f"{one.times:,}", binary(one.sent_bytes))
        if not collectives:
            table.add_row("  nothing", "", "", "")

    for layer in plan.layers:
        if layer.reading is not None:
            add(f"one layer {layer.kind} (of {layer.count})", layer.reading.collectives, layer.count)
    if plan.reading.needed_bytes is None:
        add("the whole step", plan.reading.collectives, 1)
    return table


def _show_ranking(plans: "list[Plan]", switches: PlanSwitches) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    bounds = ("compute", "memory", "network") if plans[0].chip else ()
    fits = ("fits",) if plans[0].chip else ()
    table = _table("mesh", *fits, "a device", *bounds, "compile s")
    for plan in plans:
        table.add_row(
            _mesh(plan),
            *("yes" if plan.fits else "no" for _ in fits),
            binary(plan.needed_bytes),
            *(f"{1e3 * plan.bounds[name]:,.1f}" if plan.bounds else "-" for name in bounds),
            f"{plan.reading.compile_seconds:.0f}",
            style="" if plan.fits is not False else "dim",
        )
    console.print(table)
    console.print()
    if bounds:
        said = "compute, memory, network: ms; a step takes at least the longest. The best mesh stands first."
    else:
        said = "Of virtual devices no speed is known: the mesh that needs the least memory stands first."
    console.print(said, style="dim")
    console.print(f"next: {_command(switches, mesh=_mesh(plans[0]))}", markup=False, soft_wrap=True)


def _next(plan: "Plan", switches: PlanSwitches) -> str:
    from griffin_eqx.planning.targets import larger, parse_target

    bigger = larger(parse_target(plan.target))
    if plan.fits is False and bigger:
        return _command(switches, target=str(bigger), search=True)
    if plan.chip is not None and plan.bottleneck == "network":
        return _command(switches, search=True)
    if plan.job == "decode":
        return f"griffin sample latest --mesh {_mesh(plan)}"
    if plan.chip is None:
        return f"griffin train {_quoted(switches)} --mesh {_mesh(plan)}"
    return f"griffin train {_quoted(switches)} --mesh {_mesh(plan)} --data.batch_size {plan.batch_size}"


def _quoted(switches: PlanSwitches) -> str:
    import shlex

    return shlex.quote(switches.source) if switches.source else ""


def _command(
    switches: PlanSwitches, *, target: str | None = None, mesh: str | None = None, search: bool = False
) -> str:
    words = ["griffin plan", _quoted(switches), f"--target {target or switches.target}"]
    words.append("--search" if search else f"--mesh {mesh or switches.mesh}")
    words += [f"--batch {switches.batch}"] if switches.batch else []
    words += [f"--seq-len {switches.seq_len}"] if switches.seq_len else []
    words += ["--job decode"] if switches.job == "decode" else []
    return " ".join(filter(None, words))
