"""Machines that can be planned for: what a chip has, and which slices of it there are. Imports no JAX.

What Google publishes of each chip: https://cloud.google.com/tpu/docs/v5e, .../v5p, .../v6e ("System architecture",
and the tables of topologies below).
"""

import dataclasses
import math
import re

from griffin_eqx.errors import GriffinError
from griffin_eqx.pattern import nearest


class TargetError(GriffinError, ValueError):
    """A machine that cannot be read, or that there is not."""


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip, which is one device to JAX.

    Attributes:
      name: As in a target.
      memory_bytes: High-bandwidth memory, as published. The compiler keeps a little of it for itself, and has the
        last word on what fits.
      flops_per_second: Peak of dense products in bfloat16.
      memory_bytes_per_second: Peak bandwidth of that memory.
      link_bytes_per_second: Of one link to a neighbour, one way: the published bandwidth of all links and both ways,
        over their number and over 2.
      cycles_per_second: The clock. It follows from the published peak: FLOP/s over 2 * side**2 a matrix unit.
      topologies: Slices of a pod, smallest first; written `4x8`.
    """

    name: str
    memory_bytes: int
    flops_per_second: float
    memory_bytes_per_second: float
    link_bytes_per_second: float
    cycles_per_second: float
    topologies: tuple[str, ...]


_FLAT = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = (
    *("2x2x1", "2x2x2", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16"),
    "16x16x24",
)

CHIPS = {
    chip.name: chip
    for chip in (
        # 400 GB/s both ways over 4 links.
        Chip("v5e", 16 << 30, 197e12, 819e9, 50e9, 1.5e9, _FLAT),
        # 1,200 GB/s both ways over 6 links (a 3D torus).
        Chip("v5p", 95 << 30, 459e12, 2765e9, 100e9, 1.75e9, _CUBES),
        # 800 GB/s both ways over 4 links. The clock: matrix units of 256, of which the page now has 2.
        Chip("v6e", 32 << 30, 918e12, 1640e9, 100e9, 1.75e9, _FLAT),
    )
}
"""TPU generations that the compiler knows and that can be had in slices."""

CPU = "cpu"
MOST_CPUS = 512


@dataclasses.dataclass(frozen=True)
class Target:
    """A machine.

    Attributes:
      text: As it was named: `v5p:4x4x8`, `cpu:8`.
      chip: None for virtual devices of a CPU, of which nothing is known but what is compiled.
      num_devices: Of it.
      torus: Chips along each axis of its network.
    """

    text: str
    chip: Chip | None
    num_devices: int
    torus: tuple[int, ...]

    def __str__(self) -> str:
        return self.text


def parse_target(text: str) -> Target:
    """Reads `v5p:4x4x8` or `cpu:8`.

    Raises:
      TargetError: If there is no such machine; it names the nearest.

    >>> parse_target("v5e:4x8").num_devices
    32
    """
    name, _, size = text.strip().lower().partition(":")
    if name == CPU:
        if not re.fullmatch(r"[1-9]\d{0,3}", size) or int(size) > MOST_CPUS:
            raise TargetError(
                f"--target {text}: how many virtual devices?\n  Write cpu:8; at most {MOST_CPUS}.\n"
                "  They show that a program compiles and what it communicates, and not how fast."
            )
        return Target(f"{CPU}:{int(size)}", None, int(size), (int(size),))
    if name not in CHIPS:
        close = nearest(name, [*CHIPS, CPU])
        guess = f"Did you mean {close}? " if close else ""
        raise TargetError(
            f"--target {text}: there is no {name!r}.\n  {guess}Known: {', '.join(CHIPS)}, {CPU}.\n"
            "  Name a slice as in v5p:4x4x8, or cpu:8."
        )
    chip = CHIPS[name]
    if size not in chip.topologies:
        raise TargetError(
            f"--target {text}: there is no slice {size!r} of {name}.\n"
            f"  Slices of {name}: {', '.join(chip.topologies)}.\n"
            f"  {_nearest_slice(chip, size)}"
        )
    return slice_of(chip, size)


def slice_of(chip: Chip, topology: str) -> Target:
    """A slice by its topology."""
    torus = tuple(map(int, topology.split("x")))
    return Target(f"{chip.name}:{topology}", chip, math.prod(torus), torus)


def larger(target: Target) -> Target | None:
    """The next larger slice of the same chip; None where there is none."""
    if target.chip is None:
        return None
    slices = sorted((slice_of(target.chip, each) for each in target.chip.topologies), key=_size)
    return next((each for each in slices if each.num_devices > target.num_devices), None)


def _size(target: Target) -> int:
    return target.num_devices


def _nearest_slice(chip: Chip, size: str) -> str:
    sides = re.fullmatch(r"\d{1,4}(x\d{1,4}){0,2}", size)
    if not sides:
        return f"Write it as {chip.name}:{chip.topologies[-3]}."
    wanted = math.prod(map(int, size.split("x")))
    slices = [slice_of(chip, each) for each in chip.topologies]
    close = min(slices, key=lambda each: abs(math.log(each.num_devices / max(wanted, 1))))
    return f"Nearest to {wanted} chips: {close} ({close.num_devices})."
