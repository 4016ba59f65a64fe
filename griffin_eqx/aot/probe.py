"""Compiles one job for a TPU generation and reads what came out. Runs in the compiler's environment."""

import functools
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from griffin_kernels.cases import CASES
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from griffin_eqx.aot import hlo
from griffin_eqx.aot.pallas import observed_calls
from griffin_eqx.aot.schedule import Loop, read_schedule

BIG = 16
"""An array counts as big from 1/16 of the input's elements on: far above a state's, far below a layer's."""


def probe(job: dict[str, Any], dump: Path) -> dict[str, Any]:
    """Compiles a kernel.

    Args:
      job: Names a case, an implementation, a direction, a dtype, a shape, a topology.
      dump: Where the compiler writes its schedules.

    Returns:
      What `report.Reading` holds.
    """
    case = CASES[job["case"]]
    arguments = case.arguments(tuple(job["shape"]), job["dtype"])
    function = functools.partial(case.function, implementation=job["implementation"])
    function, arguments = _directed(function, arguments, job["direction"])
    where = SingleDeviceSharding(_device(job["topology"]))
    placed = jax.tree.map(lambda z: jax.ShapeDtypeStruct(z.shape, z.dtype, sharding=where), arguments)
    start = time.perf_counter()
    with observed_calls() as calls:
        compiled = jax.jit(function).lower(*placed).compile()
    seconds = time.perf_counter() - start
    return read(compiled, calls, math.prod(job["shape"]), dump) | {"compile_seconds": seconds}


def read(compiled: Any, calls: dict[str, dict[str, Any]], elements: int, dump: Path) -> dict[str, Any]:
    """Reads a compiled program: passes over memory, temporaries, traffic, and the schedule of each kernel."""
    module = hlo.read_module(compiled.as_text())
    kernels = [_kernel(call, calls, dump) for call in module.kernels()]
    # A kernel that fetches by itself has no blocks to count: it moves what it declares, all of it.
    moved = {
        hlo.kernel_name(call): calls[hlo.kernel_name(call)]["block_bytes"]
        or [calls[hlo.kernel_name(call)]["declared_bytes"] or 0]
        for call in module.kernels()
    }
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    return {
        "relayouts": module.passes(elements // BIG),
        "temporary_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "moved_bytes": module.traffic(moved),
        "xla_bytes": cost.get("bytes accessed", 0.0),
        "xla_cycles": module.estimated_cycles(),
        "kernels": kernels,
    }


def _kernel(call: str, calls: dict[str, dict[str, Any]], dump: Path) -> dict[str, Any]:
    name = hlo.kernel_name(call)
    pattern = re.compile(rf"\d+-{re.escape(call)}-\d+-final_bundles\.txt")
    files = [file for file in dump.iterdir() if pattern.fullmatch(file.name)]
    schedule = read_schedule(files[0].read_text(encoding="utf-8")) if files else None
    blocks = calls[name]["block_bytes"]
    return {
        "name": name,
        "declared_bytes": calls[name]["declared_bytes"],
        "moved_bytes": None if blocks is None else sum(blocks),
        "loops": [_loop(loop) for loop in schedule.walk()] if schedule else [],
        "inner_bundles": schedule.innermost.bundles if schedule else None,
        "cycles": schedule.cycles if schedule else None,
    }


def _loop(loop: Loop) -> dict[str, Any]:
    return {"depth": loop.depth, "bundles": loop.bundles, "turns": loop.turns}


@functools.cache
def _device(topology: str) -> Any:
    return topologies.get_topology_desc(topology, platform="tpu").devices[0]


def _directed(function: Callable[..., Any], arguments: tuple[Any, ...], direction: str):
    """The program of one direction and its arguments.

    The backward pass alone is the pull-back, whose arguments are what the forward pass saved and the cotangents.
    """
    if direction == "forward":
        return function, arguments
    floating = [all(jnp.issubdtype(z.dtype, jnp.floating) for z in jax.tree.leaves(one)) for one in arguments]
    differentiable = [z for z, yes in zip(arguments, floating, strict=True) if yes]
    fixed = [z for z, yes in zip(arguments, floating, strict=True) if not yes]

    def pull_back(differentiable, fixed):
        def closed(*parts):
            moving, still = iter(parts), iter(fixed)
            return function(*(next(moving) if yes else next(still) for yes in floating))

        return jax.vjp(closed, *differentiable)

    outputs, saved = jax.eval_shape(pull_back, differentiable, fixed)
    if direction == "backward":
        return (lambda saved, cotangents: saved(cotangents)), (saved, outputs)

    def gradient(differentiable, fixed, cotangents):
        outputs, back = pull_back(differentiable, fixed)
        return outputs, back(cotangents)

    return gradient, (differentiable, fixed, outputs)
