"""Reads from a compiled module's text what devices send each other: which collectives, how often, over which axes.

Imports no JAX.
"""

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from griffin_eqx.aot.hlo import Computation, Instruction, Module

KINDS = (
    *("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all"),
    *("collective-permute", "collective-broadcast"),
)

_CHANNEL = re.compile(r"\bchannel_id=(\d+)")
_NAMED = re.compile(r"replica_groups=mesh\[([^\]]*)\] *\{([^}]*)\}")
_LISTED = re.compile(r"replica_groups=\{(\{[\d,{}]*\})\}")
_COUNTED = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_PAIRS = re.compile(r"source_target_pairs=\{(\{[\d,{}]*\})\}")


class Collective(msgspec.Struct, frozen=True, kw_only=True):
    """Collectives of one kind over the same devices.

    Attributes:
      kind: Of `KINDS`.
      axes: The mesh axes whose devices take part, outermost first.
      devices: In each group.
      times: In one run of the program.
      sent_bytes: What one device sends in all of them together, by the shortest algorithm: a reduction of n bytes
        over g devices is `2 n (g - 1) / g`, half of that for a gather or scatter to or from n bytes.
    """

    kind: str
    axes: tuple[str, ...]
    devices: int
    times: int
    sent_bytes: int


def read_collectives(module: Module, mesh: Mapping[str, int]) -> tuple[Collective, ...]:
    """What one run of a module communicates.

    Args:
      module: Compiled for the mesh, whose devices it counts in the mesh's order.
      mesh: Axis names and sizes, outermost first.

    Returns:
      One entry for each kind and set of axes, the most bytes first.
    """
    runs = module.runs()
    fused = {
        callee
        for computation in module.computations.values()
        for instruction in computation.values()
        if instruction.opcode == "fusion"
        for callee in instruction.callees
    }
    found: dict[tuple[object, ...], Collective] = {}
    for name, computation in module.computations.items():
        for instruction in computation.values():
            one = _read(instruction, computation, name, mesh) if runs[name] else None
            if one is None:
                continue
            # On TPU one collective runs beside several products, as a part of each of their fusions.
            channel = _CHANNEL.search(instruction.text)
            shared = name in fused and channel is not None
            key = (one.kind, channel[1]) if shared and channel else (one.kind, name, instruction.name)
            many = msgspec.structs.replace(one, times=runs[name], sent_bytes=runs[name] * one.sent_bytes)
            if key not in found or found[key].sent_bytes < many.sent_bytes:
                found[key] = many
    return merged(found.values())


def merged(collectives: Iterable[Collective]) -> tuple[Collective, ...]:
    """The same, with one entry for each kind and set of axes, the most bytes first."""
    sums: dict[tuple[str, tuple[str, ...], int], Collective] = {}
    for one in collectives:
        key = (one.kind, one.axes, one.devices)
        before = sums.get(key)
        sums[key] = (
            one
            if before is None
            else msgspec.structs.replace(
                before, times=before.times + one.times, sent_bytes=before.sent_bytes + one.sent_bytes
            )
        )
    return tuple(sorted(sums.values(), key=lambda one: (-one.sent_bytes, one.kind, one.axes)))


def _read(
    instruction: Instruction, computation: Computation, name: str, mesh: Mapping[str, int]
) -> Collective | None:
    kind = instruction.opcode.removesuffix("-start")
    if kind not in KINDS:
        return None
    text = instruction.text
    if kind == "collective-permute":
        pairs = [(int(a), int(b)) for a, b in re.findall(r"\{(\d+),(\d+)\}", _first(_PAIRS, text))]
        axes = _axes_of(pairs, mesh)
        moving = [pair for pair in pairs if pair[0] != pair[1]]
        if not moving:
            return None
        return Collective(kind=kind, axes=axes, devices=2, times=1, sent_bytes=_result(instruction))
    axes, devices = _group(text, mesh)
    if devices < 2:
        return None
    operands = [computation[each] for each in instruction.operands if each in computation]
    whole = max(_result(instruction), sum(array.bytes for operand in operands for array in operand.arrays))
    if kind == "all-reduce" and "all-reduce-scatter" in name:  # how TPUs spell it
        kind = "reduce-scatter"
    rounds = 2 if kind == "all-reduce" else 1
    sent = rounds * whole * (devices - 1) // devices
    return Collective(kind=kind, axes=axes, devices=devices, times=1, sent_bytes=sent)


def _result(instruction: Instruction) -> int:
    """Bytes of what it gives; one that only starts names its operands as well, and the larger half is the result."""
    sizes = [array.bytes for array in instruction.arrays]
    if not instruction.opcode.endswith("-start") or len(sizes) < 2:
        return sum(sizes)
    if instruction.opcode == "collective-permute-start":
        return sizes[1]
    half = len(sizes) // 2
    return max(sum(sizes[:half]), sum(sizes[half : 2 * half]))


def _group(text: str, mesh: Mapping[str, int]) -> tuple[tuple[str, ...], int]:
    """The mesh axes that a collective runs over, and how many devices are in a group."""
    named = _NAMED.search(text)
    if named:
        sizes = [int(size) for size in re.findall(r"=(\d+)", named[1])]
        order = re.findall(r"'([^']+)'=", named[1])
        chosen = re.findall(r"'([^']+)'", named[2])
        parts = [tuple(range(size)) for size in sizes]
        groups: dict[tuple[int, ...], list[int]] = {}
        for device, place in enumerate(itertools.product(*parts)):
            key = tuple(at for at, axis in zip(place, order, strict=True) if axis not in chosen)
            groups.setdefault(key, []).append(device)
        return _spanned(list(groups.values()), mesh)
    counted = _COUNTED.search(text)
    if counted:
        return _spanned(_iota(*(_numbers(part) for part in counted.groups())), mesh)
    listed = [_numbers(part) for part in re.findall(r"\{([\d,]+)\}", _first(_LISTED, text))]
    everyone = [list(range(math.prod(mesh.values())))]
    return _spanned(listed or everyone, mesh)


def _iota(shape: list[int], dims: list[int], order: list[int]) -> list[list[int]]:
    """The groups behind `[groups,devices]<=[dims]T(order)`: numbers laid out as dims, transposed, cut into rows."""
    places = itertools.product(*(range(size) for size in (dims[axis] for axis in order or range(len(dims)))))
    strides = [math.prod(dims[axis + 1 :]) for axis in range(len(dims))]
    taken = [strides[axis] for axis in order] if order else strides
    flat = [sum(at * stride for at, stride in zip(place, taken, strict=True)) for place in places]
    return [flat[start : start + shape[-1]] for start in range(0, len(flat), shape[-1])]


def _spanned(groups: Sequence[Sequence[int]], mesh: Mapping[str, int]) -> tuple[tuple[str, ...], int]:
    pairs = [(group[0], other) for group in groups for other in group[1:]]
    return _axes_of(pairs, mesh), max((len(group) for group in groups), default=1)


def _axes_of(pairs: Iterable[tuple[int, int]], mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The mesh axes along which the two devices of some pair differ."""
    axes = set()
    for one, other in pairs:
        for axis, size in reversed(list(mesh.items())):
            if one % size != other % size:
                axes.add(axis)
            one, other = one // size, other // size
    return tuple(axis for axis in mesh if axis in axes)


def _numbers(text: str | None) -> list[int]:
    return [int(number) for number in (text or "").split(",") if number]


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""
