"""`griffin info`: what a model is made of, before it is built."""

import dataclasses
import json
from typing import TYPE_CHECKING

from griffin_eqx.cli.arguments import Flag, Number
from griffin_eqx.cli.configure import ModelSwitches, configure
from griffin_eqx.errors import GriffinError
from griffin_eqx.units import binary, si

if TYPE_CHECKING:
    from griffin_eqx.summary import ModelSummary


@dataclasses.dataclass(frozen=True)
class Info(ModelSwitches):
    """Show layers, parameters, FLOPs and caches of a model. Nothing is allocated, whatever its size.

    Attributes:
      json: Print one JSON object in place of the table.
      seq_len: Tokens of the sequence that FLOPs and caches are for; data.seq_len when left out.
    """

    json: Flag = False
    seq_len: Number = None


def run(argv: list[str]) -> int:
    """Runs the command."""
    config, switches = configure(argv, Info, prog="griffin info")
    if switches.seq_len is not None and switches.seq_len < 1:
        raise GriffinError(f"--seq-len {switches.seq_len}: must be at least 1.")
    from griffin_eqx.summary import describe

    summary = describe(config, seq_len=switches.seq_len)
    if switches.json:
        cache_bytes = {**summary.cache_bytes, "total": summary.total_cache_bytes}
        print(json.dumps(dataclasses.asdict(summary) | {"cache_bytes": cache_bytes}, indent=2))
    else:
        _show(summary)
    return 0


def _show(summary: "ModelSummary") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    for name, value in (
        ("pattern", Text(summary.pattern, "bold")),
        (
            "parameters",
            f"{si(summary.parameters)}  ({si(summary.parameters_non_embedding)} without embedding)",
        ),
        ("weights", f"{binary(summary.weight_bytes)}  ({summary.precision})"),
        ("vocabulary", f"{summary.vocab_size:,} tokens"),
        (
            "FLOPs a token",
            f"{si(summary.flops_per_token)} forward, {si(summary.training_flops_per_token)} training",
        ),
    ):
        facts.add_row(name, value)

    layers = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    layers.add_column("layers", justify="right")
    layers.add_column("block")
    layers.add_column("cache", justify="right")
    layers.add_column("grows")
    for kind, size in summary.cache_bytes.items():
        count = summary.layers.count(kind)
        layers.add_row(str(count), Text(kind, "cyan"), binary(size), summary.cache_growth[kind])
    layers.add_row(str(len(summary.layers)), "all", binary(summary.total_cache_bytes), "", style="bold")

    console = Console(highlight=False)
    console.print(facts)
    console.print()
    console.print("  ".join(_written(unit, repeats) for unit, repeats in summary.runs), markup=False)
    console.print()
    console.print(layers)
    console.print(f"\nFLOPs and caches are for one sequence of {summary.seq_len:,} tokens.", style="dim")


def _written(unit: tuple[str, ...], repeats: int) -> str:
    return f"{repeats} x ({' '.join(unit)})" if repeats > 1 else " ".join(unit)
