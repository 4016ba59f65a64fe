"""`griffin bench`: speed against a limit: measured on this machine, or read from what the TPU compiler makes."""

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Annotated

import tyro

from griffin_eqx.cli.arguments import Flag
from griffin_eqx.cli.configure import ModelSwitches, configure
from griffin_eqx.errors import GriffinError
from griffin_eqx.pattern import nearest

if TYPE_CHECKING:
    from griffin_eqx.benchmark.step import StepBenchmark, StepTime

SUBJECTS = {
    "step": "train and forward step of a model, against this machine's matrix-product peak",
    "decode": "tokens a second against reading weights and caches once, latency against context",
    "prefill": "how fast prompts are read, against the matrix-product peak",
    "scan": "each implementation of the linear scan, against a memory copy of the same bytes",
    "kernels": "what the TPU compiler makes of each kernel, with no TPU",
}


@dataclasses.dataclass(frozen=True)
class BenchStep(ModelSwitches):
    """Measure the train and forward step of a model against this machine's matrix-product peak.

    The batch is that of the configuration: --data.batch_size, --data.seq_len. Nothing is trained or saved.

    Attributes:
      json: Print one JSON object in place of the table.
      repeats: Timed steps, after one that is not counted.
    """

    json: Flag = False
    repeats: Annotated[int, tyro.conf.arg(metavar="N", help_behavior_hint="")] = 5


def run(argv: list[str]) -> int:
    """Runs the command."""
    if not argv or argv[0] in ("-h", "--help"):
        subjects = "\n".join(f"  {name:<8} {text}" for name, text in SUBJECTS.items())
        print(
            f"usage: griffin bench SUBJECT [OPTIONS]\n\n{subjects}\n\n"
            "`griffin bench SUBJECT --help` tells more."
        )
        return 0
    subject, rest = argv[0], argv[1:]
    if subject not in SUBJECTS:
        close = nearest(subject, SUBJECTS)
        guess = f"Did you mean `griffin bench {close}`? " if close else ""
        raise GriffinError(
            f"there is nothing to bench named {subject!r}.\n{guess}Subjects: {', '.join(SUBJECTS)}."
        )
    if subject in ("decode", "prefill"):
        from griffin_eqx.cli.bench_decode import run_decode, run_prefill

        return run_decode(rest) if subject == "decode" else run_prefill(rest)
    if subject == "kernels":
        from griffin_eqx.cli.bench_kernels import run as run_kernels

        return run_kernels(rest)
    if subject == "scan":
        from griffin_eqx.cli.bench_scan import run as run_scan

        return run_scan(rest)
    config, switches = configure(rest, BenchStep, prog="griffin bench step")
    if switches.repeats < 1:
        raise GriffinError(f"--repeats {switches.repeats}: must be at least 1.")
    from griffin_eqx.cpu_memory import keep_freed_memory

    keep_freed_memory()
    from griffin_eqx.benchmark.step import bench_step
    from griffin_eqx.summary import with_vocabulary

    def say(text: str) -> None:
        if not switches.json:
            print(f"{text} ...", file=sys.stderr, flush=True)

    result = bench_step(with_vocabulary(config), repeats=switches.repeats, say=say)
    if switches.json:
        # The train step's figures also stand at the top, where a script looks first.
        print(json.dumps(dataclasses.asdict(result.train) | dataclasses.asdict(result), indent=2))
    else:
        _show(result)
    return 0


def _show(result: "StepBenchmark") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(
        f"[bold]{result.pattern}[/]  {result.parameters:,} parameters, {result.batch_size} x {result.seq_len} "
        f"tokens, {result.precision}, remat {result.remat}, {result.device}"
    )
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("step", "compile s", "median s", "best s", "tokens/s", "of peak", "best", "temporaries"):
        table.add_column(column, justify="left" if column == "step" else "right")

    def row(name: str, part: "StepTime") -> None:
        temporaries = "?" if part.temporary_bytes is None else f"{part.temporary_bytes / 1e6:,.0f} MB"
        table.add_row(
            name,
            f"{part.compile_seconds:.1f}",
            f"{part.step_seconds:.3f}",
            f"{part.best_seconds:.3f}",
            f"{part.tokens_per_second:,.0f}",
            f"{part.matmul_peak_fraction:.2f}",
            f"{part.best_peak_fraction:.2f}",
            temporaries,
        )

    row("train", result.train)
    row("forward", result.forward)
    console.print(table)
    console.print(
        f"peak: {result.matmul_flops_per_second / 1e9:,.0f} GFLOP/s in a square product (best "
        f"{result.matmul_flops_per_second_best / 1e9:,.0f}); process peak {result.peak_bytes / 1e6:,.0f} MB"
    )
    console.print(
        "of peak: the time that the weight products alone would take at that rate, over the step's time",
        style="dim",
    )
