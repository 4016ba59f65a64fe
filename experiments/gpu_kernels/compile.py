"""Compiles every GPU kernel for A100, H100 and B200, without any of them, and prints what came of it.

JAX_PLATFORMS=cpu python experiments/gpu_kernels/compile.py [--gpus H100] [--programs linear_scan] [--json]
"""

import argparse
import dataclasses
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import gpu_compiler  # first: it sets flags that JAX reads once
import jax
import jax.numpy as jnp
from griffin_kernels.linear_scan import Planar, linear_scan
from griffin_kernels.rg_lru import rg_lru_scan

SHAPE = (8, 2048, 2560)
DTYPES = ("float32", "bfloat16")


def scan(shape, dtype, *, planar=False, reset=True):
    """A scan with h0, and its pullback."""
    row = jax.ShapeDtypeStruct(shape, dtype)
    state = jax.ShapeDtypeStruct((shape[0], shape[2]), jnp.float32)
    kind: Any = (lambda z: Planar(z, z)) if planar else lambda z: z
    resets = [jax.ShapeDtypeStruct(shape[:2], jnp.bool)] if reset else []

    def forward_and_backward(x, a, h0, dh, dh_last, reset=None):
        out, pull = jax.vjp(lambda x, a, h0: linear_scan(x, a, h0, reset), x, a, h0)
        return out, pull((dh, dh_last))

    return forward_and_backward, (*map(kind, (row, row, state, row, state)), *resets)


def rg_lru(shape, dtype):
    """The fused RG-LRU with h0, resets and padding, and its pullback."""
    row = jax.ShapeDtypeStruct(shape, dtype)
    state = jax.ShapeDtypeStruct((shape[0], shape[2]), jnp.float32)
    a_param = jax.ShapeDtypeStruct(shape[2:], jnp.float32)
    flags = jax.ShapeDtypeStruct(shape[:2], jnp.bool)

    def forward_and_backward(x, recurrence_gate, input_gate, a_param, h0, dh, dh_last, reset, valid):
        def scan(x, recurrence_gate, input_gate, a_param, h0):
            return rg_lru_scan(x, recurrence_gate, input_gate, a_param, h0, reset, valid)

        out, pull = jax.vjp(scan, x, recurrence_gate, input_gate, a_param, h0)
        return out, pull((dh, dh_last))

    return forward_and_backward, (row, row, row, a_param, state, row, state, flags, flags)


PROGRAMS = {
    "linear_scan": partial(scan, SHAPE, reset=False),
    "linear_scan[reset]": partial(scan, SHAPE),
    "linear_scan[complex, reset]": partial(scan, SHAPE, planar=True),
    "linear_scan[odd]": partial(scan, (8, 2047, 2561)),
    "rg_lru": partial(rg_lru, SHAPE),
}


def compiled(gpus, programs) -> Iterator[dict[str, Any]]:
    """One record a kernel with a loop; XLA's own, of flags and states, have none."""
    for program in programs:
        for dtype in DTYPES:
            for gpu in gpus:
                function, shapes = PROGRAMS[program](jnp.dtype(dtype))
                found = gpu_compiler.compile_for(gpu_compiler.GPUS[gpu], function, *shapes)
                for kernel in filter(lambda kernel: kernel.loads, found.kernels):
                    yield {
                        "program": program,
                        "dtype": dtype,
                        "gpu": gpu,
                        "temporaries": found.temporaries,
                        "seconds": found.seconds,
                        **dataclasses.asdict(kernel),
                    }


def table(records) -> Iterator[str]:
    """The same as lines of Markdown, the GPUs side by side where they differ."""
    heads = "program", "kernel", "dtype", "registers", "spilled", "loads", "bits", "temporaries"
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    rows: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for record in records:
        rows.setdefault((record["program"], record["name"], record["dtype"]), []).append(record)
    for key, found in rows.items():
        columns = [[str(record[name]) for record in found] for name in heads[3:]]
        columns = [" / ".join(column if len(set(column)) > 1 else column[:1]) for column in columns]
        yield f"| {' | '.join([*key, *columns])} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", nargs="+", choices=gpu_compiler.GPUS, default=list(gpu_compiler.GPUS))
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--json", action="store_true", help="a record a line in place of the table")
    chosen = parser.parse_args()
    records = compiled(chosen.gpus, chosen.programs)
    for line in map(json.dumps, records) if chosen.json else table(records):
        print(line, flush=True)


if __name__ == "__main__":
    main()
