"""`griffin bench decode` and `griffin bench prefill`: writing and reading, each against its limit."""

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
import tyro

from griffin_eqx import presets
from griffin_eqx.cli.arguments import Flag, Text
from griffin_eqx.cli.configure import ModelSwitches, configure, load_source
from griffin_eqx.cli.plots import plot_file
from griffin_eqx.config import Config
from griffin_eqx.errors import GriffinError

if TYPE_CHECKING:
    from rich.table import Table

    from griffin_eqx.benchmark.decode import DecodeBenchmark
    from griffin_eqx.benchmark.prefill import PrefillBenchmark

Numbers = Annotated[tuple[int, ...], tyro.conf.arg(metavar="N [N ...]", help_behavior_hint="")]
Models = Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODEL [MODEL ...]", help_behavior_hint="")]
Count = Annotated[int, tyro.conf.arg(metavar="N", help_behavior_hint="")]


@dataclasses.dataclass(frozen=True)
class BenchDecode(ModelSwitches):
    """Measure decoding against its limit: reading weights and caches once a step (Griffin, equation 5).

    The limit is the bandwidth of a matrix-vector product over weights that no cache holds, timed in turns with the
    model. Weights are random, tokens greedy.

    Attributes:
      against: More models, by preset or pattern, in the same rounds; vocabulary and precision are those of MODEL.
      batches: Rows.
      prompt: Tokens that stand before the first new one where batches are compared.
      contexts: The same where lengths are compared, for one row.
      memory_gb: Memory for weights and caches, for the largest batch that fits.
      tokens: Steps of one sample.
      rounds: Samples of each.
      json: Print one JSON object in place of the tables.
      plot: Draw latency against context, and throughput against rows, into this file (.svg, .png, .pdf).
    """

    against: Models = ()
    batches: Numbers = (1, 8)
    prompt: Count = 1024
    contexts: Numbers = (1024, 8192, 32768, 131072)
    memory_gb: float = 16.0
    tokens: Count = 16
    rounds: Count = 5
    json: Flag = False
    plot: Text = None


@dataclasses.dataclass(frozen=True)
class BenchPrefill(ModelSwitches):
    """Measure how fast prompts are read, against this machine's matrix-product peak in the same rounds.

    Attributes:
      against: More models, by preset or pattern, in the same rounds; vocabulary and precision are those of MODEL.
      batch: Prompts.
      prompts: Lengths, in tokens.
      prefill_chunk: Tokens that are read at once.
      rounds: Samples of each.
      json: Print one JSON object in place of the table.
    """

    against: Models = ()
    batch: Count = 1
    prompts: Numbers = (128, 1024, 4096)
    prefill_chunk: Count = 1024
    rounds: Count = 5
    json: Flag = False


def run_decode(argv: list[str]) -> int:
    """Runs `griffin bench decode`."""
    config, switches = configure(argv, BenchDecode, prog="griffin bench decode")
    _positive("prompt", "tokens", "rounds", "batches", "contexts", "memory_gb", of=switches)
    plot = plot_file(switches.plot)
    from griffin_eqx.benchmark.decode import bench_decode
    from griffin_eqx.cpu_memory import keep_freed_memory

    keep_freed_memory()
    result = bench_decode(
        _configs(config, switches.source, switches.against),
        batches=switches.batches,
        prompt=switches.prompt,
        contexts=switches.contexts,
        memory_bytes=int(switches.memory_gb * 1e9),
        tokens=switches.tokens,
        rounds=switches.rounds,
        say=_sayer(switches.json),
    )
    if plot:
        from griffin_eqx.benchmark.decode_plot import draw

        draw(result, plot)
    if switches.json:
        print(json.dumps(dataclasses.asdict(result), indent=2))
    else:
        _show_decode(result)
    return 0


def run_prefill(argv: list[str]) -> int:
    """Runs `griffin bench prefill`."""
    config, switches = configure(argv, BenchPrefill, prog="griffin bench prefill")
    _positive("batch", "prompts", "prefill_chunk", "rounds", of=switches)
    from griffin_eqx.benchmark.prefill import bench_prefill
    from griffin_eqx.cpu_memory import keep_freed_memory

    keep_freed_memory()
    result = bench_prefill(
        _configs(config, switches.source, switches.against),
        batch=switches.batch,
        prompts=switches.prompts,
        prefill_chunk=switches.prefill_chunk,
        rounds=switches.rounds,
        say=_sayer(switches.json),
    )
    if switches.json:
        print(json.dumps(dataclasses.asdict(result), indent=2))
    else:
        _show_prefill(result)
    return 0


def _configs(config: Config, source: str | None, against: tuple[str, ...]) -> dict[str, Config]:
    """The models by name. A preset brings its sizes; a pattern takes those of the first model."""
    from griffin_eqx.summary import with_vocabulary

    config = with_vocabulary(config)
    configs = {source or presets.DEFAULT: config}
    for name in against:
        other = load_source(name).model
        if name.lower() not in presets.names():
            other = msgspec.structs.replace(config.model, pattern=other.pattern)
        other = msgspec.structs.replace(other, vocab_size=config.model.vocab_size)
        configs[name] = msgspec.structs.replace(config, model=other)
    return configs


def _positive(*names: str, of: BenchDecode | BenchPrefill) -> None:
    for name in names:
        value = getattr(of, name)
        numbers = value if isinstance(value, tuple) else (value,)
        if not numbers or not all(number > 0 for number in numbers):
            given = " ".join(map(str, numbers))
            raise GriffinError(
                f"--{name.replace('_', '-')} {given}: must be above 0.\nLeave it out for the default."
            )


def _sayer(silent: bool) -> Callable[[str], None]:
    def say(text: str) -> None:
        if not silent:
            print(f"{text} ...", file=sys.stderr, flush=True)

    return say


def _show_decode(result: "DecodeBenchmark") -> None:
    from rich.console import Console

    console = Console(highlight=False)
    console.print(
        f"{result.device}, {result.precision}; a streaming matrix-vector product reads "
        f"{result.bytes_per_second / 1e9:.1f} GB/s"
    )
    for model in result.models:
        console.print(
            f"\n[bold]{model.name}[/]  {model.pattern}  {model.parameters:,} parameters, "
            f"{model.weight_bytes / 1e6:,.0f} MB; first token, compiling included: {model.first_token_seconds:.1f} s"
        )
        heads = ("rows", "context", "ms a step", "best", "tokens/s", "of the limit", "cache", "rows that fit")
        rows = [
            (
                f"{point.batch}",
                f"{point.context:,}",
                f"{1e3 * point.step_seconds:.1f}",
                f"{1e3 * point.best_seconds:.1f}",
                f"{point.tokens_per_second:,.1f}",
                f"{point.limit_fraction:.2f}",
                f"{point.cache_bytes / 1e6:,.2f} MB",
                f"{model.largest_batch[point.context]:,}",
            )
            for point in model.points
        ]
        console.print(_numbers(heads, rows))
    console.print(
        f"\nof the limit: the time to read weights and caches once at that rate, over the step's time; rows that fit: "
        f"into {result.memory_bytes / 1e9:g} GB, weights included",
        style="dim",
    )


def _show_prefill(result: "PrefillBenchmark") -> None:
    from rich.console import Console

    console = Console(highlight=False)
    console.print(
        f"{result.device}, {result.precision}, chunks of {result.prefill_chunk}; a square product does "
        f"{result.matmul_flops_per_second / 1e9:,.0f} GFLOP/s"
    )
    for model in result.models:
        console.print(f"\n[bold]{model.name}[/]  {model.pattern}  {model.parameters:,} parameters")
        heads = ("prompts", "tokens", "seconds", "best", "tokens/s", "first token s", "of peak")
        rows = [
            (
                f"{point.batch}",
                f"{point.prompt:,}",
                f"{point.seconds:.3f}",
                f"{point.best_seconds:.3f}",
                f"{point.tokens_per_second:,.0f}",
                f"{point.first_token_seconds:.3f}",
                f"{point.matmul_peak_fraction:.2f}",
            )
            for point in model.points
        ]
        console.print(_numbers(heads, rows))
    console.print(
        "\nof peak: the time that the weight products alone would take at that rate, over the time taken",
        style="dim",
    )


def _numbers(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> "Table":
    """A table of figures under their heads."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for head in heads:
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(*row)
    return table
