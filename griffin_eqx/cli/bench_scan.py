"""`griffin bench scan`: every implementation of the linear scan on this machine, against a memory copy."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from griffin_eqx.cli.arguments import Flag, Text, parse
from griffin_eqx.cli.plots import plot_file
from griffin_eqx.errors import GriffinError
from griffin_eqx.pattern import nearest

if TYPE_CHECKING:
    from rich.table import Table

    from griffin_eqx.benchmark.scan import ScanBenchmark, Timing

SHAPES = ("2,2048,1024", "8,512,768")


@dataclasses.dataclass(frozen=True)
class BenchScan:
    """Measure each implementation of the linear scan on this machine against a memory copy of the same bytes.

    Forward: x and a are read, h is written. With the gradient dh, a and h are read as well, dx and da written.

    Attributes:
      shape: Batch, tokens and channels, such as 2,2048,1024; may be repeated.
      dtype: Of the arrays; the state is float32.
      implementation: One implementation alone; may be repeated.
      complex: Scan pairs of real and imaginary parts.
      reset: Let a document start at one token in a hundred.
      rounds: How often each program is timed, in turn with the others.
      json: Print one JSON list in place of the tables.
      plot: Draw the result into this file (.svg, .png, .pdf).
    """

    shape: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="B,T,D", help_behavior_hint="")
    ] = ()
    dtype: Literal["float32", "bfloat16"] = "float32"
    implementation: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME", help_behavior_hint="")
    ] = ()
    complex: Flag = False
    reset: Flag = False
    rounds: Annotated[int, tyro.conf.arg(metavar="N", help_behavior_hint="")] = 15
    json: Flag = False
    plot: Text = None


def run(argv: list[str]) -> int:
    """Runs the command."""
    switches = parse(BenchScan, argv, prog="griffin bench scan")
    shapes = [_shape(text) for text in switches.shape or SHAPES]
    if switches.rounds < 1:
        raise GriffinError(f"--rounds {switches.rounds}: must be at least 1.\nLeave it out for 15.")
    plot = plot_file(switches.plot)
    from griffin_eqx.cpu_memory import keep_freed_memory

    keep_freed_memory()
    _check_implementations(switches.implementation)
    results = [_measure(shape, switches) for shape in shapes]
    if plot:
        from griffin_eqx.benchmark.scan_plot import draw

        draw(results, plot)
    if switches.json:
        print(json.dumps([dataclasses.asdict(result) for result in results], indent=2))
    else:
        _close(results, plot)
    return 0


def _shape(text: str) -> tuple[int, int, int]:
    sizes = text.split(",")
    if len(sizes) != 3 or not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        raise GriffinError(
            f"--shape {text}: is not batch, tokens and channels.\nWrite three numbers above 0, such as {SHAPES[0]}."
        )
    batch, seq_len, width = (int(size) for size in sizes)
    return batch, seq_len, width


def _check_implementations(names: tuple[str, ...]) -> None:
    import jax
    from griffin_kernels.linear_scan.implementations import FORWARD

    for name in names:
        if name not in FORWARD.implementations:
            close = nearest(name, FORWARD.implementations)
            guess = f"Did you mean {close}? " if close else ""
            raise GriffinError(
                f"--implementation {name}: linear_scan has none of that name.\n{guess}"
                f"Implementations: {', '.join(FORWARD.implementations)}."
            )
        platforms = FORWARD.implementations[name].platforms
        if platforms and jax.default_backend() not in platforms:
            raise GriffinError(
                f"--implementation {name}: runs on {' and '.join(platforms)}, and this is {jax.default_backend()}.\n"
                "Leave it out to time what runs here, or go to a machine that has one."
            )


def _measure(shape: tuple[int, int, int], switches: BenchScan) -> "ScanBenchmark":
    from griffin_eqx.benchmark.scan import bench_scan

    def bench(**callbacks) -> "ScanBenchmark":
        return bench_scan(
            shape,
            dtype=switches.dtype,
            implementations=switches.implementation or None,
            complex=switches.complex,
            reset=switches.reset,
            rounds=switches.rounds,
            **callbacks,
        )

    if switches.json:
        return bench()
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    parts: list[Table | Text] = [Text(f"[{', '.join(map(str, shape))}] {switches.dtype}"), Text()]

    with Live(Group(*parts), console=console, auto_refresh=False) as live:

        def say(text: str) -> None:
            if console.is_terminal:
                live.update(Group(*parts, Text(f"{text} ...", "dim")), refresh=True)

        def tell(result: "ScanBenchmark") -> None:
            parts[:] = [_title(result), _table(result)]

        result = bench(say=say, tell=tell)
        parts[:] = [_title(result), _table(result), _left_out(result), Text()]
        live.update(Group(*parts), refresh=True)
    return result


def _title(result: "ScanBenchmark"):
    from rich.text import Text

    kind = "complex " * result.complex + result.dtype + ", with resets" * result.reset
    text = Text.assemble((f"[{', '.join(map(str, result.shape))}] {kind}", "bold"))
    return text.append(f"  {result.device}, {result.cores} cores, {result.rounds} rounds")


def _table(result: "ScanBenchmark") -> "Table":
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    for column in ("scan", "pass", "compile s", "median ms", "range", "x copy", "x assoc"):
        table.add_column(column, justify="left" if column in ("scan", "pass") else "right", no_wrap=True)
    associative = result.backend("associative")

    def row(name: str, kind: str, timing: "Timing", rival: "Timing | None" = None, style: str = "") -> None:
        table.add_row(
            name,
            kind,
            f"{timing.compile_seconds:.1f}" if timing.compile_seconds else "",
            f"{timing.median_seconds * 1e3:.2f}",
            f"{timing.best_seconds * 1e3:.2f}-{timing.worst_seconds * 1e3:.2f}",
            f"{timing.times_copy:.2f}",
            f"{timing.median_seconds / rival.median_seconds:.2f}" if rival else "",
            style=style,
        )

    for backend in result.backends:
        if backend.forward is not None and backend.gradient is not None:
            name, style = backend.name, ""
            if backend.default_of:
                name, style = f"{name} ({backend.default_of})", "bold"
            row(name, "forward", backend.forward, associative and associative.forward, style)
            row("", "+ gradient", backend.gradient, associative and associative.gradient, style)
    row("copy", "forward", result.copy_forward, style="dim")
    row("", "+ gradient", result.copy_gradient, style="dim")
    if result.one_thread_forward is not None and result.one_thread_gradient is not None:
        row("copy, 1 thread", "forward", result.one_thread_forward, style="dim")
        row("", "+ gradient", result.one_thread_gradient, style="dim")
    return table


def _left_out(result: "ScanBenchmark"):
    """The implementations without times, each with its reason."""
    from rich.text import Text

    lines = [f"{backend.name}: {backend.not_timed}" for backend in result.backends if backend.not_timed]
    return Text("\n".join([*(f"not timed: {line}" for line in lines), result.bound]).strip(), "dim")


def _choices(result: "ScanBenchmark") -> str:
    forward = f"{result.choice} here: {result.why}"
    if result.choice == result.choice_backward:
        return forward
    return f"{forward}; backwards {result.choice_backward}: {result.why_backward}"


def _close(results: "list[ScanBenchmark]", plot: Path | None) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    result = results[-1]
    console.print(
        f"linear_scan runs {_choices(result)}. The copy moves the bytes that a scan must: 3 words an "
        "element forwards, 8 with the gradient. x copy: the median over rounds.",
        style="dim",
    )
    if plot:
        console.print(f"\nDrawn: {plot}")
    console.print("\nNext: griffin bench step griffin-100m --data.batch_size 2 --data.seq_len 512")
