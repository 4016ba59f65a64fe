"""What a plan comes to: does it fit, how fast could it be at best, what bounds it, what to change. Imports no JAX."""

import msgspec

from griffin_eqx.planning.collectives import Collective
from griffin_eqx.planning.order import Reading
from griffin_eqx.planning.targets import CHIPS, Chip, Target, larger, parse_target

TIGHT = 0.9
"""A part of the memory above which a plan is called tight: other versions of the compiler differ by a few percent."""


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of layer, compiled alone: forward and, in training, backward.

    Attributes:
      kind: As the pattern names it.
      count: Of such layers.
      reading: What came of it.
      error: Why there is none.
    """

    kind: str
    count: int
    reading: Reading | None = None
    error: str | None = None

    @property
    def sent_bytes(self) -> int:
        """What one device sends for one such layer."""
        return sum(one.sent_bytes for one in self.reading.collectives) if self.reading else 0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A job on a machine that is not here.

    Attributes:
      model: As it was named.
      pattern: Its layers.
      job: `train` or `decode`.
      target: The machine, as in `--target`.
      mesh: Devices along data, sequence, model.
      batch_size: Rows.
      seq_len: Tokens of a row; in decoding, of the documents that caches hold.
      held_bytes: A device, by kind: what lies there between two runs, and the batch.
      flops: Of one run on all devices together, as the layers count them.
      reading: What the compiler made of it.
      layers: Every kind of layer, compiled alone.
      versions: Of JAX and the compiler.
    """

    model: str
    pattern: str
    job: str
    target: str
    mesh: tuple[int, int, int]
    batch_size: int
    seq_len: int
    held_bytes: dict[str, int]
    flops: int
    reading: Reading
    layers: tuple[Layer, ...]
    versions: dict[str, str]

    @property
    def _target(self) -> Target:
        return parse_target(self.target)

    @property
    def chip(self) -> Chip | None:
        """The chip; None for a CPU."""
        return CHIPS.get(self.target.partition(":")[0])

    @property
    def num_devices(self) -> int:
        """Of the mesh."""
        data, sequence, model = self.mesh
        return data * sequence * model

    @property
    def needed_bytes(self) -> int:
        """Memory of one device that the program needs: arguments, results, temporaries, the program."""
        reading = self.reading
        if reading.needed_bytes is not None:
            return reading.needed_bytes
        parts = (reading.argument_bytes, reading.new_bytes, reading.temporary_bytes, reading.program_bytes)
        return sum(parts)

    @property
    def available_bytes(self) -> int | None:
        """Memory of one device, as published; what the compiler says where it found too little."""
        if self.reading.available_bytes is not None:
            return self.reading.available_bytes
        return self.chip.memory_bytes if self.chip else None

    @property
    def fits(self) -> bool | None:
        """Whether it does; None for a CPU, whose memory the virtual devices share."""
        if self.available_bytes is None:
            return None
        return self.reading.needed_bytes is None and self.needed_bytes <= self.available_bytes

    @property
    def bytes_by_kind(self) -> dict[str, int]:
        """Where a device's memory goes; it adds up to `needed_bytes`."""
        reading = self.reading
        kinds = dict(self.held_bytes)
        if reading.needed_bytes is not None:
            return kinds | {"all else": max(0, reading.needed_bytes - sum(kinds.values()))}
        # Rounding up of small arrays to whole tiles.
        kinds["layout"] = max(0, reading.argument_bytes - sum(kinds.values()))
        kinds["temporaries"] = reading.temporary_bytes + reading.new_bytes
        kinds["program"] = reading.program_bytes
        return {kind: size for kind, size in kinds.items() if size}

    @property
    def compute_seconds(self) -> float | None:
        """The products at the chip's peak."""
        return self.chip and self.flops / self.num_devices / self.chip.flops_per_second

    @property
    def memory_seconds(self) -> float | None:
        """The bytes between memory and chip at peak bandwidth."""
        return self.chip and self.reading.moved_bytes / self.chip.memory_bytes_per_second

    @property
    def network_seconds(self) -> float | None:
        """What is sent, at the bandwidth of the links that its mesh axes lie along, both ways."""
        return self.chip and sum(map(self.seconds_of, self.reading.collectives), 0.0)

    def seconds_of(self, collective: Collective) -> float:
        """The least time that collectives take on the network: nothing else is sent meanwhile."""
        assert self.chip is not None
        along = {at for axis in collective.axes for at in self.reading.spans.get(axis, ())}
        return collective.sent_bytes / (2 * self.chip.link_bytes_per_second * max(1, len(along)))

    @property
    def compiler_seconds(self) -> float | None:
        """The compiler's own guess, kernels left out."""
        return self.chip and self.reading.cycles / self.chip.cycles_per_second

    @property
    def bounds(self) -> dict[str, float]:
        """The least time of a run by what it takes: compute, memory, network. Empty where nothing is known."""
        if self.chip is None or self.reading.needed_bytes is not None:
            return {}
        named = {
            "compute": self.compute_seconds,
            "memory": self.memory_seconds,
            "network": self.network_seconds,
        }
        return {name: seconds or 0.0 for name, seconds in named.items()}

    @property
    def bottleneck(self) -> str | None:
        """What takes longest."""
        bounds = self.bounds
        return max(bounds, key=lambda name: bounds[name]) if bounds else None

    @property
    def seconds(self) -> float | None:
        """The least time of a run, if everything overlaps perfectly."""
        return max(self.bounds.values(), default=None)

    @property
    def tokens(self) -> int:
        """Of one run."""
        return self.batch_size * (self.seq_len if self.job == "train" else 1)

    @property
    def tokens_per_second(self) -> float | None:
        """The most that this machine could do."""
        return self.tokens / self.seconds if self.seconds else None

    def advice(self) -> list[str]:
        """What to change, the most useful first."""
        if self.fits is False:
            return self._to_fit()
        if self.chip is None:
            return []
        found = []
        if self.available_bytes and self.needed_bytes > TIGHT * self.available_bytes:
            found.append("it fits with little to spare: another version of the compiler may need more")
        return [*found, *self._to_speed()]

    def _to_fit(self) -> list[str]:
        room = self.available_bytes or 0
        kept = sum(self.held_bytes.values())
        bigger = larger(self._target)
        more = (
            f"take a larger slice: --target {bigger}" if bigger else "take another chip: no slice is larger"
        )
        if self.job == "decode":
            caches = self.held_bytes.get("caches", 0)
            parameters = self.held_bytes.get("parameters", 0)
            halved = "keep the weights in bfloat16: --train.precision p=bf16,c=bf16,o=f32,s=f32"
            fewer = f"decode fewer rows: --batch {max(1, self.batch_size // 2)}"
            return [halved, fewer, more] if parameters > caches else [fewer, halved, more]
        if kept > room / 2:
            return [more, "split parameters over more devices: a larger data or model axis"]
        parts = "--optimizer.accumulation 4 (parts of a batch, one after the other)"
        return ["--train.remat full (compute layers twice, keep less)", parts, more]

    def _to_speed(self) -> list[str]:
        data, _, model = self.mesh
        if self.bottleneck == "network":
            most = max(self.reading.collectives, key=self.seconds_of)
            over = ",".join(most.axes)
            found = [f"most of the network's time is {most.kind} over {over}"]
            if model > 1 and "model" in most.axes:
                found.append(f"fewer devices along model: --mesh data={data * 2},model={model // 2}")
            if "data" in most.axes:
                found.append(
                    f"more rows for each exchange of parameters: --batch {self.batch_size * 2}"
                    if self.job == "train"
                    else f"fewer devices along data: --mesh model={model * data}"
                )
            return found
        if self.bottleneck == "memory":
            if self.job == "decode":
                return [
                    f"weights and caches are read once a token: more rows share that: --batch {self.batch_size * 2}"
                ]
            return [
                "layers read and write more than they compute: more channels a device (a smaller model axis)"
            ]
        return ["it is bound by its products: nothing to change but more chips"]


def as_dict(plan: Plan) -> dict[str, object]:
    """Everything, what follows from it too, for JSON."""
    derived = (
        *("num_devices", "fits", "needed_bytes", "available_bytes", "bytes_by_kind", "bounds", "bottleneck"),
        *("seconds", "tokens_per_second", "compiler_seconds"),
    )
    answer = {name: getattr(plan, name) for name in derived} | {"advice": plan.advice()}
    return msgspec.to_builtins(plan) | answer
