"""What the compiler is asked, and what it answers."""

from typing import Literal

import msgspec

from griffin_eqx.aot.targets import TARGETS, Target

Direction = Literal["forward", "backward", "gradient"]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One program to compile.

    Attributes:
      case: Its name in `griffin_kernels.cases`.
      implementation: Which of the case's.
      direction: `gradient` is forward and backward in one program.
      dtype: Of the arrays.
      shape: Batch, length, width.
      target: A TPU generation.
      limit_words: Words an element that no program can go below; None where nobody worked it out.
    """

    case: str
    implementation: str
    direction: Direction
    dtype: str
    shape: tuple[int, int, int]
    target: str
    limit_words: float | None = None

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.case} {self.implementation} {self.direction} {self.dtype} {self.target}"

    @property
    def elements(self) -> int:
        """Tokens times channels."""
        batch, seq_len, width = self.shape
        return batch * seq_len * width

    @property
    def word_bytes(self) -> int:
        """Bytes of a word."""
        return {"float32": 4, "bfloat16": 2}[self.dtype]


class LoopReading(msgspec.Struct, frozen=True):
    """A loop of a kernel: how deep, how many bundles a turn, how many turns."""

    depth: int
    bundles: int
    turns: int | None


class KernelReading(msgspec.Struct, frozen=True):
    """A Pallas call in a compiled program.

    Attributes:
      name: As in `pallas_call(name=...)`.
      declared_bytes: Its `CostEstimate`, which XLA plans with; None if it has none.
      moved_bytes: What its blocks move; None where that is not fixed before it runs.
      loops: Of its final schedule, outermost first; the first is the kernel itself.
      inner_bundles: Bundles a turn of the innermost loop.
      cycles: Turns times bundles, summed; None where turns are unknown.
    """

    name: str
    declared_bytes: int | None
    moved_bytes: int | None
    loops: tuple[LoopReading, ...] = ()
    inner_bundles: int | None = None
    cycles: int | None = None


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled program.

    Attributes:
      relayouts: Copies, transposes, reshapes, pads, slices of big arrays, by name.
      temporary_bytes: Memory beside arguments and outputs.
      argument_bytes: Memory of arguments.
      output_bytes: Memory of outputs.
      moved_bytes: Between memory and chip in one run, loops as often as they go round.
      xla_bytes: XLA's own count: a loop once, a kernel as declared.
      xla_cycles: The compiler's own guess for everything but Pallas calls.
      kernels: Its Pallas calls.
      compile_seconds: Tracing, lowering, compiling.
    """

    relayouts: tuple[str, ...]
    temporary_bytes: int
    argument_bytes: int
    output_bytes: int
    moved_bytes: int
    xla_bytes: float
    xla_cycles: int
    kernels: tuple[KernelReading, ...]
    compile_seconds: float


class Result(msgspec.Struct, frozen=True):
    """A job and what came of it: a reading, or an error."""

    job: Job
    reading: Reading | None = None
    error: str | None = None

    @property
    def target(self) -> Target:
        """The generation."""
        return TARGETS[self.job.target]

    @property
    def words(self) -> float | None:
        """Words an element between memory and chip."""
        return self.reading and self.reading.moved_bytes / self.job.elements / self.job.word_bytes

    @property
    def xla_words(self) -> float | None:
        """Words an element as XLA counts: a loop once, a kernel as declared."""
        return self.reading and self.reading.xla_bytes / self.job.elements / self.job.word_bytes

    @property
    def temporary_words(self) -> float | None:
        """Words of temporaries an element."""
        return self.reading and self.reading.temporary_bytes / self.job.elements / self.job.word_bytes

    @property
    def ratio(self) -> float | None:
        """Words over the limit."""
        return self.words / self.job.limit_words if self.words and self.job.limit_words else None

    @property
    def inner_bundles(self) -> int | None:
        """Bundles of the heaviest innermost loop of its kernels."""
        known = [kernel.inner_bundles for kernel in self.reading.kernels] if self.reading else []
        return max((n for n in known if n is not None), default=None)

    @property
    def memory_seconds(self) -> float | None:
        """The time that its traffic takes at peak bandwidth."""
        return self.reading and self.reading.moved_bytes / self.target.bytes_per_second

    @property
    def compute_seconds(self) -> float | None:
        """Bundles of kernels and the compiler's guess for the rest, over the clock."""
        if self.reading is None or any(kernel.cycles is None for kernel in self.reading.kernels):
            return None
        cycles = sum(kernel.cycles or 0 for kernel in self.reading.kernels)
        return (self.reading.xla_cycles + cycles) / self.target.cycles_per_second

    @property
    def seconds(self) -> float | None:
        """The longer of the two."""
        return max((s for s in (self.memory_seconds, self.compute_seconds) if s is not None), default=None)

    def as_dict(self) -> dict[str, object]:
        """Everything, what follows from it too, for JSON."""
        derived = (
            "words",
            "xla_words",
            "ratio",
            "inner_bundles",
            "memory_seconds",
            "compute_seconds",
            "seconds",
        )
        plain = msgspec.to_builtins(self)
        return (
            plain["job"]
            | {name: getattr(self, name) for name in derived}
            | {
                "reading": plain["reading"],
                "error": self.error,
            }
        )
