"""Compiles one program for a machine and reads what came out. Runs in the child process.

TPUs need not be there: `libtpu` compiles for a named topology. Virtual devices of a CPU are those of the process.
"""

import functools
import importlib
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import msgspec
from jax.experimental import topologies
from jax.sharding import Mesh

from griffin_eqx import registry
from griffin_eqx.aot.hlo import kernel_name, read_module
from griffin_eqx.config import Config
from griffin_eqx.mesh import MeshShape
from griffin_eqx.planning.collectives import read_collectives
from griffin_eqx.planning.order import Offer, Order
from griffin_eqx.planning.programs import Programs

_TOO_MUCH = re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def answer(request: dict[str, Any], dump: Path) -> dict[str, Any]:
    """Compiles what an order asks for.

    Args:
      request: An `Order`, in builtin types.
      dump: Where the TPU compiler writes the module.

    Returns:
      What `Reading` holds.
    """
    order = msgspec.convert(request, Order)
    _offer(order.blocks)
    shape = MeshShape(*order.mesh)
    devices = devices_of(order.topology)
    programs = Programs(msgspec.convert(order.config, Config), shape, devices)
    made = compile_and_read(
        lambda: programs.lower(order.job), programs.mesh, dump if order.topology is not None else None
    )
    return {"spans": spans(programs.mesh)} | made


def compile_and_read(lower: Callable[[], Any], mesh: Mesh, dump: Path | None) -> dict[str, Any]:
    """Compiles a program and reads what came out.

    Args:
      lower: Gives the program, lowered for the devices of the mesh.
      mesh: The mesh.
      dump: Where the TPU compiler writes the module; None for a CPU.

    Returns:
      What `Reading` holds, without `spans`.
    """
    start, cpu_start = time.perf_counter(), time.process_time()
    calls: dict[str, dict[str, Any]] = {}
    if dump is None:
        lowered = lower()
    else:
        from griffin_eqx.aot.pallas import observed_calls

        with observed_calls() as calls:
            lowered = lower()
    lowered_at = time.perf_counter()
    reading: dict[str, Any] = {"trace_seconds": lowered_at - start}
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        found = _TOO_MUCH.search(str(error))
        if not found:
            raise
        used, room = (round(float(found[at]) * _UNITS[found[at + 1]]) for at in (1, 3))
        return reading | {
            "compile_seconds": time.perf_counter() - lowered_at,
            "cpu_seconds": time.process_time() - cpu_start,
            "needed_bytes": used,
            "available_bytes": room,
        }
    reading["compile_seconds"] = time.perf_counter() - lowered_at
    reading["cpu_seconds"] = time.process_time() - cpu_start
    text = compiled.as_text() if dump is None else _written(dump)
    return reading | _read(compiled, text, calls, dict(mesh.shape))


def _written(dump: Path) -> str:
    """The module's text, as the compiler itself writes it: that of large ones can fail to come through JAX.

    (In libtpu 0.0.52 where three products share an asynchronous collective: "async-update instruction should have 1
    operands but sees 3".)
    """
    written = sorted(dump.glob("*.after_codegen.txt"), key=lambda path: path.stat().st_size)
    return written[-1].read_text(encoding="utf-8", errors="replace")


def _read(compiled: Any, text: str, calls: dict[str, dict[str, Any]], mesh: dict[str, int]) -> dict[str, Any]:
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    module = read_module(text)
    moved = {}
    for call in map(kernel_name, module.kernels()):
        seen = calls.get(call, {"block_bytes": None, "declared_bytes": None})
        moved[call] = seen["block_bytes"] or [seen["declared_bytes"] or 0]
    return {
        "argument_bytes": memory.argument_size_in_bytes,
        "new_bytes": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "program_bytes": memory.generated_code_size_in_bytes,
        "moved_bytes": module.traffic(moved),
        "cycles": module.estimated_cycles(),
        "xla_bytes": float(cost.get("bytes accessed", 0.0)),
        "collectives": [msgspec.to_builtins(each) for each in read_collectives(module, mesh)],
    }


@functools.cache
def devices_of(topology: str | None) -> Sequence[Any]:
    """The devices of a topology as the TPU compiler names it; this process's own for None."""
    if topology is None:
        return jax.devices()
    return topologies.get_topology_desc(topology, platform="tpu").devices


def spans(mesh: Mesh) -> dict[str, list[int]]:
    """For each axis of the mesh the axes of the machine's torus along which its neighbours differ."""
    devices = mesh.devices
    found: dict[str, list[int]] = {}
    for index, axis in enumerate(mesh.axis_names):
        line = devices.swapaxes(0, index)[:, 0, 0]
        places = [tuple(getattr(device, "coords", ())) for device in line]
        found[axis] = [at for at, along in enumerate(zip(*places, strict=True)) if len(set(along)) > 1]
    return found


def _offer(blocks: Iterable[Offer]) -> None:
    """Makes the blocks known here that the order's pattern names: no distribution of theirs is installed."""
    known = {entry.name: entry.target for entry in registry.entries()}
    for block in blocks:
        if known.get(block.name) == f"{block.module}:{block.attribute}":
            continue
        if block.file is not None:
            registry.add_file(block.file)
            continue
        module = importlib.import_module(block.module)
        registry.add(functools.reduce(getattr, block.attribute.split("."), module))
