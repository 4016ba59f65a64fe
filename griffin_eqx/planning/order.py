"""What the child process is asked for, and what it answers. Imports no JAX."""

from typing import Any

import msgspec

from griffin_eqx.planning.collectives import Collective


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A block that an order's pattern names, and where it comes from.

    Attributes:
      name: The canonical one.
      module: That defines it.
      attribute: Its name there.
      file: The file given by `--plugin`, in place of a module.
    """

    name: str
    module: str
    attribute: str
    file: str | None = None


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One program to compile.

    Attributes:
      config: In builtin types, with a vocabulary.
      mesh: Devices along data, sequence, model.
      job: `train`, `decode`, or a layer of either: `train 0.1` is the second layer of the first unit.
      topology: As the TPU compiler names it, `v5p:4x4x8`; None for virtual devices of the CPU.
      blocks: That the pattern names.
    """

    config: dict[str, Any]
    mesh: tuple[int, int, int]
    job: str
    topology: str | None
    blocks: tuple[Offer, ...]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an order. All bytes are of one device.

    Attributes:
      trace_seconds: Tracing and lowering.
      compile_seconds: The compiler.
      cpu_seconds: Of processors, for both: what counts where other work runs beside.
      spans: For each axis of the mesh, the axes of the machine's torus that it lies along.
      needed_bytes: Memory that the program needs where it does not fit; None where it does.
      available_bytes: Memory that there is, where it does not fit.
      argument_bytes: What is there before it runs, as the compiler lays it out.
      new_bytes: Results that take no argument's place.
      temporary_bytes: What is there only while it runs.
      program_bytes: The program itself.
      moved_bytes: Between memory and chip in one run, loops as often as they go round.
      cycles: The compiler's own guess, without kernels.
      xla_bytes: Moved, as XLA counts: a loop once, a kernel as declared.
      collectives: What one run communicates.
    """

    trace_seconds: float
    compile_seconds: float
    cpu_seconds: float
    spans: dict[str, tuple[int, ...]]
    needed_bytes: int | None = None
    available_bytes: int | None = None
    argument_bytes: int = 0
    new_bytes: int = 0
    temporary_bytes: int = 0
    program_bytes: int = 0
    moved_bytes: int = 0
    cycles: int = 0
    xla_bytes: float = 0.0
    collectives: tuple[Collective, ...] = ()
