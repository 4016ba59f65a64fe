"""`griffin info`: what a model is made of, before it is built."""

import dataclasses
import json
import re
from typing import TYPE_CHECKING

from griffin_eqx.cli.arguments import Flag, Number, Text
from griffin_eqx.cli.configure import ModelSwitches, configure
from griffin_eqx.errors import GriffinError
from griffin_eqx.units import binary, si

if TYPE_CHECKING:
    from griffin_eqx.placement import PlacementSummary
    from griffin_eqx.summary import ModelSummary


@dataclasses.dataclass(frozen=True)
class Info(ModelSwitches):
    """Show layers, parameters, FLOPs and caches of a model. Nothing is allocated, whatever its size.

    Attributes:
      json: Print one JSON object in place of the table.
      seq_len: Tokens of the sequence that FLOPs and caches are for; data.seq_len when left out.
      mesh: Also show where every array lies on a mesh of devices, such as data=2,model=4, and its bytes a device.
    """

    json: Flag = False
    seq_len: Number = None
    mesh: Text = None


def run(argv: list[str]) -> int:
    """Runs the command."""
    config, switches = configure(argv, Info, prog="griffin info")
    if switches.seq_len is not None and switches.seq_len < 1:
        raise GriffinError(f"--seq-len {switches.seq_len}: must be at least 1.")
    from griffin_eqx.mesh import parse_mesh

    mesh = None if switches.mesh is None else parse_mesh(switches.mesh)
    from griffin_eqx.summary import describe

    summary = describe(config, seq_len=switches.seq_len)
    placement = None
    if mesh is not None:
        from griffin_eqx.placement import describe_placement

        placement = describe_placement(config, mesh)
    if switches.json:
        cache_bytes = {**summary.cache_bytes, "total": summary.total_cache_bytes}
        answer = dataclasses.asdict(summary) | {"cache_bytes": cache_bytes}
        print(json.dumps(answer if placement is None else answer | _mesh_facts(placement), indent=2))
    else:
        _show(summary)
        if placement is not None:
            _show_mesh(summary, placement)
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


def _mesh_facts(placement: "PlacementSummary") -> dict:
    arrays = [
        {
            "path": each.path,
            "shape": each.shape,
            "dtype": str(each.dtype),
            "axes": each.axes,
            "spec": each.spec,
            "bytes_per_device": each.bytes_per_device,
        }
        for each in placement.arrays
    ]
    return {
        "mesh": placement.mesh._asdict(),
        "parameter_bytes_per_device": placement.parameter_bytes,
        "optimizer_bytes_per_device": placement.optimizer_bytes,
        "rows_per_device": placement.rows,
        "tokens_per_device": placement.tokens,
        "arrays": arrays,
    }


def _show_mesh(summary: "ModelSummary", placement: "PlacementSummary") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    mesh, sizes = placement.mesh, placement.mesh._asdict()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    table.add_column("array", no_wrap=True)
    table.add_column("axis=size/parts")
    table.add_column("a device", justify="right")
    heading = None
    for each in placement.arrays:
        unit = re.match(r"\.stack\.units\[(\d+)\]\[(\d+)\]", each.path)
        field = each.path[unit.end() + 1 if unit else 1 :]
        if unit and unit[0] != heading:
            heading = unit[0]
            blocks, repeats = summary.runs[int(unit[1])]
            table.add_row(Text(_written((blocks[int(unit[2])],), repeats)))
        axes = " ".join(
            f"{axis}={size}" + (f"/{sizes[onto]}" if onto else "")
            for size, axis, onto in zip(
                each.shape, each.axes or ("?",) * len(each.shape), each.spec, strict=True
            )
            if axis != "num_layers"
        )
        table.add_row(Text(("  " if unit else "") + field, "cyan"), Text(axes), binary(each.bytes_per_device))
    console = Console(highlight=False)
    console.print(f"\nOn {mesh.num_devices} devices: {mesh}\n", style="bold")
    console.print(table)
    console.print(
        f"\na device: parameters {binary(placement.parameter_bytes)}, gradients as much, "
        f"optimizer {binary(placement.optimizer_bytes)}; of a batch {placement.rows:g} rows of "
        f"{placement.tokens:g} tokens"
    )
    if unknown := sorted({name for each in placement.arrays for name in each.unknown}):
        console.print(f"names that no mesh axis has, so whole on each: {', '.join(unknown)}", markup=False)
    if unread := [each.path for each in placement.arrays if each.axes is None]:
        console.print(f"without a shape annotation, so whole on each: {', '.join(unread)}", markup=False)
