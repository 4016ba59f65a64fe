"""TPU generations: how the compiler calls them, and how fast their memory and their clock are."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Target:
    """One generation, as one JAX device of it.

    Attributes:
      name: As in `--target`.
      topology: The smallest topology that the compiler knows.
      bytes_per_second: Peak bandwidth of the device's memory.
      cycles_per_second: The clock. It follows from the published peak: FLOP/s over 2 * side**2 a matrix unit.
    """

    name: str
    topology: str
    bytes_per_second: float
    cycles_per_second: float


TARGETS = {
    target.name: target
    for target in (
        # A JAX device on v3 is one of a chip's two cores, with half of the chip's 900 GB/s.
        Target("v3", "v3:2x2", 450e9, 0.94e9),
        Target("v5e", "v5e:2x2", 819e9, 1.5e9),
        Target("v5p", "v5p:2x2x1", 2765e9, 1.75e9),
        # That v6e has four matrix units, as the clock assumes, is not published.
        Target("v6e", "v6e:2x2", 1640e9, 1.75e9),
    )
}
