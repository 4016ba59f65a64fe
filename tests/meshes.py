"""Meshes of eight virtual devices, a scan over one of them as the kit's laws call it, and what programs communicate."""

import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ("data", "sequence", "model")

MESHES = tuple((d, s, 8 // d // s) for d, s in itertools.product((1, 2, 4, 8), repeat=2) if d * s <= 8)
"""Every (data, sequence, model)."""


def make_mesh(shape: tuple[int, ...], kind: AxisType = AxisType.Auto) -> Mesh:
    """A mesh of the first devices there are."""
    return jax.make_mesh(shape, AXES, axis_types=(kind,) * 3, devices=jax.devices()[: math.prod(shape)])


def place(mesh: Mesh, arrays: Any, spec: P) -> Any:
    """Arrays on a mesh."""
    return jax.device_put(arrays, NamedSharding(mesh, spec))


def over_mesh(scan: Callable[..., Any], shape: tuple[int, int, int]) -> Callable[..., Any]:
    """`sharded_linear_scan` with the signature of `linear_scan`: rows over `data`, channels filled up for `model`."""

    def run(x, a, h0=None, reset=None, *, reverse=False, implementation=None, interpret=False):
        mesh = make_mesh(shape)
        leaf = jax.tree.leaves(x)[0]
        width, data = leaf.shape[-1], leaf.shape[0] % shape[0] == 0 and leaf.ndim > 2
        spec = P(*["data" if data else None, None][: leaf.ndim - 2], "sequence", "model")
        x, a, h0 = jax.tree.map(lambda z: _filled(z, shape[2]), (x, a, h0))
        how = {"reverse": reverse, "implementation": implementation, "interpret": interpret}
        answer = scan(x, a, h0, reset, mesh=mesh, spec=spec, **how)
        return jax.tree.map(lambda z: z[..., :width], answer)

    return run


def _filled(z, multiple):
    return jnp.pad(z, [(0, 0)] * (z.ndim - 1) + [(0, -z.shape[-1] % multiple)])


_ALONE = re.compile(r"replica_groups=\{\{0\}(,\{\d+\})*\}")
"""Every device is a group of its own: a collective that communicates nothing."""

_ALONG = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")
"""The sizes of a mesh's axes, and those that a collective goes along, as newer compilers write groups."""

_COLLECTIVE = re.compile(
    r"= (\(?[^=]*?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute|collective-broadcast|"
    r"ragged-all-to-all)(?:-start)?\("
)


def collectives(program: Callable[..., Any], *arguments: Any) -> dict[str, list[int]]:
    """What the program, compiled for where its arguments lie, communicates.

    Returns:
      For each kind of collective the bytes that one device receives in each of them, its own share counted where
      the compiled module counts it: the size of the result.
    """
    text = jax.jit(program).lower(*arguments).compile().as_text() or ""
    found: dict[str, list[int]] = {}
    for line in re.sub(r"/\*.*?\*/", "", text).splitlines():  # in front of every fifth of a tuple
        for result, kind in _COLLECTIVE.findall(line):
            if not _communicates_nothing(line):
                sizes = [_bytes(*shape) for shape in re.findall(r"(\w+)\[([\d,]*)\]", result)]
                found.setdefault(kind, []).append(sum(sizes))
    return {kind: sorted(sizes) for kind, sizes in found.items()}


def _communicates_nothing(line: str) -> bool:
    if found := _ALONG.search(line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
        return all(sizes[axis] == "1" for axis in re.findall(r"'(\w+)'", found[2]))
    return bool(_ALONE.search(line))


def _bytes(dtype: str, dims: str) -> int:
    names = {
        "pred": "bool",
        "s8": "int8",
        "bf16": "bfloat16",
        "f32": "float32",
        "f64": "float64",
        "s32": "int32",
        "u32": "uint32",
    }
    return math.prod(int(n) for n in dims.split(",") if n) * np.dtype(jnp.dtype(names[dtype])).itemsize
