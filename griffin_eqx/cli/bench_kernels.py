"""`griffin bench kernels`: what the TPU compiler makes of each kernel, with no TPU."""

import dataclasses
import json
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from griffin_eqx.cli.arguments import Flag, parse
from griffin_eqx.errors import GriffinError
from griffin_eqx.pattern import nearest

if TYPE_CHECKING:
    from rich.table import Table

    from griffin_eqx.aot.report import Job, Result

DTYPES = ("float32", "bfloat16")
FULL_WIDTH = 125
"""Characters that all columns need."""

Names = Annotated[str, tyro.conf.arg(metavar="NAME[,NAME]", help_behavior_hint="")]


@dataclasses.dataclass(frozen=True)
class BenchKernels:
    """Compile the kernels for a TPU generation, with no TPU, and show what the compiler made of them.

    Relayouts, temporaries, words moved an element against the least possible, and the bundles that a kernel's
    innermost loop issues a turn. Nothing is run. The compiler lives in an environment of its own, made once with
    --setup. docs/kernels.md says how to read the table. Exit code 1 if a kernel does not compile.

    Attributes:
      target: TPU generations: v3, v5e, v5p, v6e.
      shape: Batch, length, width.
      dtype: float32, bfloat16.
      kernel: These kernels alone.
      implementation: These implementations alone. `associative` takes up to a minute a program.
      json: Print one JSON object.
      setup: Make the compiler's environment: 0.3 GB to download, 1.1 GB on disk.
    """

    target: Names = ""
    shape: Annotated[str, tyro.conf.arg(metavar="B,T,D", help_behavior_hint="")] = "8,2048,2560"
    dtype: Names = "float32"
    kernel: Names = ""
    implementation: Names = ""
    json: Flag = False
    setup: Flag = False


def run(argv: list[str]) -> int:
    """Runs the command."""
    switches = parse(BenchKernels, argv, prog="griffin bench kernels")
    from griffin_eqx.aot import environment
    from griffin_eqx.aot.targets import TARGETS

    if switches.setup:
        environment.set_up(lambda text: print(text, file=sys.stderr, flush=True))
        if not switches.target:
            print("next: griffin bench kernels --target v5e", file=sys.stderr)
            return 0
    targets = _names("--target", switches.target, TARGETS)
    if not targets:
        raise GriffinError(
            "--target: for which TPU generation?\n"
            f"Choose one or more of {', '.join(TARGETS)}, as in --target v5e,v6e."
        )
    dtypes = _names("--dtype", switches.dtype, DTYPES) or list(DTYPES[:1])
    shape = _shape(switches.shape)
    environment.python()

    from griffin_kernels.cases import CASES

    from griffin_eqx.aot.jobs import kernel_jobs

    known = {name for case in CASES.values() for name in case.implementations}
    jobs = kernel_jobs(
        targets,
        dtypes,
        shape,
        cases=_names("--kernel", switches.kernel, CASES),
        implementations=_names("--implementation", switches.implementation, sorted(known)),
    )
    results, versions = _compile(jobs, quiet=switches.json)
    if switches.json:
        print(
            json.dumps({"compiler": versions, "results": [result.as_dict() for result in results]}, indent=2)
        )
    else:
        _conclude(results, switches)
    return int(any(result.error for result in results))


def _names(option: str, given: str, known: Iterable[str]) -> list[str]:
    """The names of a list with commas, each once; a name that is not known is a usage error."""
    names, known = list(dict.fromkeys(filter(None, given.split(",")))), list(known)
    for name in names:
        if name not in known:
            close = nearest(name, known)
            guess = f"Did you mean {close}? " if close else ""
            raise GriffinError(f"{option} {given}: there is no {name!r}.\n{guess}Known: {', '.join(known)}.")
    return names


def _shape(given: str) -> tuple[int, int, int]:
    try:
        batch, seq_len, width = (int(part) for part in given.split(","))
    except ValueError:
        batch = seq_len = width = 0
    if min(batch, seq_len, width) < 1:
        raise GriffinError(
            f"--shape {given}: that is not a shape.\nGive batch, length and width, as in --shape 8,2048,2560."
        )
    return batch, seq_len, width


def _compile(jobs: "list[Job]", quiet: bool) -> "tuple[list[Result], dict[str, str]]":
    from rich.console import Console
    from rich.live import Live

    from griffin_eqx.aot.session import Compiler

    console = Console(highlight=False)
    live = console.is_terminal and not quiet
    results: list[Result] = []
    since = start = time.perf_counter()

    def progress() -> Any:
        from rich.console import Group

        parts: list[Any] = [*_tables(results, console.width)]
        if len(results) < len(jobs):
            job, now = jobs[len(results)], time.perf_counter()
            parts.append(
                f"{len(results) + 1} of {len(jobs)}  {job.name}  {now - since:.0f} s  (all: {now - start:.0f} s)"
            )
        return Group(*parts)

    with Compiler() as compiler:
        board = Live(get_renderable=progress, console=console, refresh_per_second=4, transient=True)
        if live:
            board.start()
        try:
            for job in jobs:
                since = time.perf_counter()
                results.append(compiler.compile(job))
                if not live:
                    seconds = time.perf_counter() - since
                    print(
                        f"{len(results)} of {len(jobs)}  {job.name}  {seconds:.1f} s",
                        file=sys.stderr,
                        flush=True,
                    )
        finally:
            if live:
                board.stop()
        return results, compiler.versions


COLUMNS = ("relayouts", "words", "of limit", "bundles", "temp MB", "memory ms", "issue ms", "compile s")
NARROW = 4
"""As many columns as fit into 80 characters."""


def _tables(results: "list[Result]", width: int) -> "Iterable[Table]":
    """One table a target and dtype."""
    from rich.table import Table
    from rich.text import Text

    columns, gap = (COLUMNS, 2) if width >= FULL_WIDTH else (COLUMNS[:NARROW], 1)
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.job.target, result.job.dtype), []).append(result)
    for (target, dtype), rows in groups.items():
        title = Text(f"{target} {dtype} {list(rows[0].job.shape)}", "bold")
        table = Table(box=None, padding=(0, gap, 0, 0), header_style="dim", title=title, title_justify="left")
        for column in ("kernel", "by", "pass"):
            table.add_column(column, no_wrap=True)
        for column in columns:
            table.add_column(column, justify="right", no_wrap=True)
        for result in rows:
            job = result.job
            cells = (
                [Text("FAILED", "bold red")] if result.error else map(Text, _cells(result)[: len(columns)])
            )
            table.add_row(Text(job.case), job.implementation, job.direction, *cells)
        yield table


def _cells(result: "Result") -> list[str]:
    reading = result.reading
    assert reading is not None

    def number(value: float | int | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    return [
        str(len(reading.relayouts)),
        number(result.words, ".2f"),
        number(result.ratio, ".2f"),
        number(result.inner_bundles, "d"),
        f"{reading.temporary_bytes / 1e6:,.1f}",
        number(result.memory_seconds and 1e3 * result.memory_seconds, ".3f"),
        number(result.compute_seconds and 1e3 * result.compute_seconds, ".3f"),
        f"{reading.compile_seconds:.1f}",
    ]


def _conclude(results: "list[Result]", switches: BenchKernels) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:  # a file has room for all columns
        console = Console(highlight=False, width=FULL_WIDTH)
    for table in _tables(results, console.width):
        console.print(table)
        console.print()
    failed = [result for result in results if result.error]
    for result in failed:
        console.print(Text(f"{result.job.name}", "bold red"))
        console.print(Text(f"  {result.error}"), soft_wrap=True)
    console.print(
        "words: moved between memory and chip, an element; bundles: of a turn of the innermost loop; issue ms: all "
        "bundles, and the compiler's guess for what is no kernel",
        style="dim",
        soft_wrap=True,
    )
    console.print(f"next: {_next(failed, switches)}", soft_wrap=True)


def _next(failed: "list[Result]", switches: BenchKernels) -> str:
    from griffin_eqx.aot.targets import TARGETS

    command = "griffin bench kernels"
    if failed:
        job = failed[0].job
        return (
            f"{command} --target {job.target} --dtype {job.dtype} --kernel {job.case} "
            f"--implementation {job.implementation} --json"
        )
    other = next((name for name in TARGETS if name not in switches.target), switches.target)
    dtype = next((name for name in DTYPES if name not in switches.dtype), switches.dtype)
    return f"{command} --target {other} --dtype {dtype}"
