"""What a mesh costs: a training step over virtual devices of one CPU, and how long programs take to compile.

    python experiments/mesh/measure.py            # some minutes; writes results.jsonl and mesh.svg
    python experiments/mesh/measure.py --table    # the tables of README.md, and mesh.svg, from results.jsonl

Needs matplotlib (`pip install -e .[report]`).
"""

import functools
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jax
import matplotlib
import msgspec
import numpy as np
from matplotlib.figure import Figure

import griffin_eqx as gx
from griffin_eqx.aot.hlo import read_module
from griffin_eqx.config import Config
from griffin_eqx.data import Batch
from griffin_eqx.mesh import AXES, MeshShape
from griffin_eqx.planning.collectives import read_collectives
from griffin_eqx.sharding import virtual_devices
from griffin_eqx.training.on_mesh import OnMesh
from griffin_eqx.training.step import CompiledStep, init_state, make_step

HERE = Path(__file__).parent
RESULTS = HERE / "results.jsonl"

ROWS, TOKENS, LAYERS = 8, 128, 6
MESHES = [MeshShape(), *(MeshShape(**{axis: count}) for axis in AXES for count in (2, 4, 8))]
DEPTHS = (6, 12, 24, 48)
DEEP = (MeshShape(), MeshShape(2, 2, 2))
"""The meshes that depths are compiled for."""

FIRST = (LAYERS, MeshShape())
"""Is in both tables, and compiled once."""

ROUNDS, TURN = 20, 2
"""Rounds, and steps of a program in each."""


def config(layers: int) -> Config:
    """Griffin of 1.3 million parameters at 6 layers, eight of everything that a mesh splits, in float32."""
    base = gx.preset("griffin-tiny")
    model = msgspec.structs.replace(
        base.model,
        pattern=f"(rg_lru rg_lru local_mqa)@{layers}",
        width=128,
        lru_width=128,
        vocab_size=1024,
        blocks={"rg_lru": {"gate_blocks": 8}, "local_mqa": {"head_dim": 16, "window_size": 32}},
    )
    data = msgspec.structs.replace(base.data, batch_size=ROWS, seq_len=TOKENS)
    train = msgspec.structs.replace(base.train, precision="p=f32,c=f32,o=f32,s=f32")
    return msgspec.structs.replace(base, model=model, data=data, train=train)


@functools.cache
def fresh(layers: int) -> Any:
    """A state to start from, in NumPy's arrays."""
    return jax.device_get(init_state(config(layers), key=jax.random.key(0)))


class Program:
    """A training step over a mesh, compiled.

    Attributes:
      facts: What compiling it took, and what came of it; bytes are of one device.
    """

    def __init__(self, layers: int, mesh: MeshShape):
        made = config(layers)
        self._on_mesh = OnMesh(mesh, made)
        self._state = self._on_mesh.lay(fresh(layers))
        tokens = np.random.default_rng(0).integers(0, 1024, (ROWS, TOKENS + 1)).astype(np.int32)
        steps = np.tile(np.arange(TOKENS, dtype=np.int32), (ROWS, 1))
        batch = Batch(tokens[:, :-1], tokens[:, 1:], steps, np.full(ROWS, TOKENS, np.int32))
        self._batch = self._on_mesh.batch(batch)
        self._continues = self._on_mesh.rows(np.zeros(ROWS, bool))
        jax.clear_caches()  # each is traced anew
        marks = [time.perf_counter()]
        started = time.process_time()
        with self._on_mesh.in_effect():
            step = make_step(made, lay=self._on_mesh.lay)
            lowered = step.lower(self._state, self._batch, self._continues)
            marks.append(time.perf_counter())
            executable = lowered.compile()
            marks.append(time.perf_counter())
        processor = time.process_time() - started
        self._step = CompiledStep(executable, jax.numpy.float32(made.optimizer.learning_rate))
        memory, text = executable.compiled.memory_analysis(), executable.compiled.as_text()
        module = read_module(text)
        sent = read_collectives(module, dict(zip(AXES, mesh, strict=True)))
        self.facts: dict[str, Any] = {
            "layers": layers,
            "mesh": list(mesh),
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(self._state.model)),
            "trace_seconds": marks[1] - marks[0],
            "compile_seconds": marks[2] - marks[1],
            "processor_seconds": processor,
            "instructions": sum(map(len, module.computations.values())),
            "kept_bytes": memory.argument_size_in_bytes,
            "temporary_bytes": memory.temp_size_in_bytes,
            "collectives": sum(one.times for one in sent),
            "sent_bytes": sum(one.sent_bytes for one in sent),
        }

    def run(self) -> tuple[float, float]:
        """Seconds of a step, by the clock and of processors: the mean of a turn."""
        started, worked = time.perf_counter(), time.process_time()
        with self._on_mesh.in_effect():
            for _ in range(TURN):
                self._state, _ = self._step(self._state, self._batch, self._continues)
        jax.block_until_ready(self._state)
        return (time.perf_counter() - started) / TURN, (time.process_time() - worked) / TURN


def measure() -> None:
    """Compiles everything, then times the steps over each mesh in turns."""
    virtual_devices(8)
    Program(1, MeshShape(2))  # what the first program pays for all
    programs = [_told(LAYERS, mesh) for mesh in MESHES]
    lines = [program.facts for program in programs]
    lines += [_told(layers, mesh).facts for layers in DEPTHS for mesh in DEEP if (layers, mesh) != FIRST]
    samples = [[] for _ in programs]
    for _ in range(ROUNDS + 1):  # the first turns fill caches
        for own, program in zip(samples, programs, strict=True):
            own.append(program.run())
    for own, program in zip(samples, programs, strict=True):
        clock, processors = zip(*own[1:], strict=True)
        program.facts |= {"step_seconds": clock, "step_processor_seconds": processors}
    RESULTS.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _told(layers: int, mesh: MeshShape) -> Program:
    program = Program(layers, mesh)
    print(f"{layers} layers over {mesh}: {program.facts['processor_seconds']:.0f} s", file=sys.stderr)
    return program


def results() -> list[dict[str, Any]]:
    """Everything measured."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def steps(lines: list[dict[str, Any]]) -> dict[MeshShape, dict[str, Any]]:
    """The programs that were timed; `speed` and `work` are quartiles, over rounds, of what they are to one device's."""
    timed = {MeshShape(*line["mesh"]): dict(line) for line in lines if "step_seconds" in line}
    one = timed[MeshShape()]
    for line in timed.values():
        clock, processors = (
            [here / there for here, there in zip(line[name], one[name], strict=True)]
            for name in ("step_seconds", "step_processor_seconds")
        )
        line["speed"] = statistics.quantiles([1 / ratio for ratio in clock], n=4)
        line["work"] = statistics.quantiles(processors, n=4)
    return timed


def tables(lines: list[dict[str, Any]]) -> str:
    """The tables of the README."""
    rows = [
        "| mesh | tokens/s | speed | processors' time | kept, MB a device | temporaries, MB a device "
        "| sent, MB a device and step | collectives a step |",
        "| --- |" + " --: |" * 7,
    ]
    for mesh, line in steps(lines).items():
        name = "one device" if mesh.num_devices == 1 else str(mesh)
        speed, work = (f"{b:.2f} ({a:.2f} to {c:.2f})" for a, b, c in (line["speed"], line["work"]))
        rows.append(
            f"| {name} | {ROWS * TOKENS / statistics.median(line['step_seconds']):,.0f} | {speed} | {work} "
            f"| {line['kept_bytes'] / 1e6:.2f} | {line['temporary_bytes'] / 1e6:.1f} "
            f"| {line['sent_bytes'] / 1e6:.1f} | {line['collectives']} |"
        )
    rows += ["", "| mesh, 6 layers | instructions | processor s |", "| --- | --: | --: |"]
    for mesh, line in steps(lines).items():
        name = "one device" if mesh.num_devices == 1 else str(mesh)
        rows.append(f"| {name} | {line['instructions']:,} | {line['processor_seconds']:.1f} |")
    rows += [
        "",
        "| layers | mesh | parameters, million | instructions | tracing, s | compiling, s | both, processor s |",
        "| --: | --- |" + " --: |" * 5,
    ]
    for line in sorted(deep(lines), key=lambda line: (line["mesh"], line["layers"])):
        mesh = MeshShape(*line["mesh"])
        rows.append(
            f"| {line['layers']} | {'one device' if mesh.num_devices == 1 else mesh} "
            f"| {line['parameters'] / 1e6:.1f} | {line['instructions']:,} | {line['trace_seconds']:.1f} "
            f"| {line['compile_seconds']:.1f} | {line['processor_seconds']:.1f} |"
        )
    return "\n".join(rows)


def deep(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The programs of all depths."""
    return [line for line in lines if MeshShape(*line["mesh"]) in DEEP]


def draw(lines: list[dict[str, Any]]) -> None:
    """Speed and memory against devices along each axis, and compiling against depth."""
    timed = steps(lines)
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    work, memory, compiling = figure.subplots(1, 3)
    for number, axis in enumerate(AXES):
        along = [timed[MeshShape(**{axis: count})] for count in (1, 2, 4, 8)]
        style = {"color": f"C{number}", "marker": "o", "label": axis}
        work.plot((1, 2, 4, 8), [line["work"][1] for line in along], **style)
        both = [(line["kept_bytes"] + line["temporary_bytes"]) / 1e6 for line in along]
        memory.plot((1, 2, 4, 8), both, **style)
        memory.plot(
            (1, 2, 4, 8),
            [line["kept_bytes"] / 1e6 for line in along],
            color=f"C{number}",
            marker="o",
            markersize=3,
            linestyle=":",
        )
    for number, mesh in enumerate(DEEP):
        own = sorted(
            (line["layers"], line["processor_seconds"])
            for line in deep(lines)
            if MeshShape(*line["mesh"]) == mesh
        )
        name = "one device" if mesh.num_devices == 1 else str(mesh)
        compiling.plot(*zip(*own, strict=True), color=f"C{number + 3}", marker="o", label=name)
    work.set(xlabel="virtual devices on two cores", ylabel="processors' time, one device is 1")
    memory.set(xlabel="virtual devices", ylabel="MB a device; dotted: between steps", yscale="log")
    compiling.set(xlabel="layers", ylabel="to compile, processor seconds")
    for panel in (work, memory):
        panel.set_xscale("log", base=2)
        panel.set_xticks((1, 2, 4, 8), ("1", "2", "4", "8"))
    compiling.set_xscale("log", base=2)
    compiling.set_xticks(DEPTHS, map(str, DEPTHS))
    for panel in (work, compiling):
        panel.set_ylim(bottom=0)
    for panel in (work, memory, compiling):
        panel.spines[["top", "right"]].set_visible(False)
        panel.minorticks_off()
    work.legend(frameon=False)
    compiling.legend(frameon=False)
    with matplotlib.rc_context({"svg.hashsalt": "griffin"}):
        figure.savefig(HERE / "mesh.svg", metadata={"Date": None})


if __name__ == "__main__":
    if "--table" not in sys.argv:
        measure()
    draw(results())
    print(tables(results()))
