"""Reads a compiled module's text: which passes over memory it makes, and how many bytes they move.

XLA's own `cost_analysis` counts a loop's body once and a kernel as what its author declares; here a body counts
as often as it runs, and a kernel as what its blocks move. Only high-bandwidth memory counts: an array that XLA
placed on the chip (`S(1)` in its layout) costs nothing.
"""

import dataclasses
import math
import re
import sys
from collections.abc import Mapping, Sequence

_COMPUTATION = re.compile(r"^(ENTRY )?%([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%([\w.\-<>]+) = (.*)$")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_NAMES = re.compile(r"%([\w.\-<>]+)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')

_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CALLED = r"(?:calls|body|condition|to_apply|true_computation|false_computation)"
_CALLS = re.compile(rf"\b{_CALLED}=(%[\w.\-<>]+)|\b(?:branch|called)_computations=\{{([^}}]*)\}}")

_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "c64": 64, "c128": 128}
_FREE = {
    *("parameter", "constant", "bitcast", "tuple", "get-tuple-element", "after-all", "partition-id"),
    *("replica-id", "opt-barrier", "iota", "domain"),
}
_PASSES = {"copy", "transpose", "reshape", "pad", "concatenate", "slice"}
KERNEL = "tpu_custom_call"


@dataclasses.dataclass(frozen=True)
class ArrayShape:
    """An array in a module's text.

    Attributes:
      elements: How many.
      bytes: Its size.
      in_hbm: False where it lies on the chip.
    """

    elements: int
    bytes: int
    in_hbm: bool


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    opcode: str
    arrays: tuple[ArrayShape, ...]
    operands: tuple[str, ...]
    text: str
    is_root: bool

    def attribute(self, name: str) -> str | None:
        """What `name=%...` refers to."""
        found = re.search(rf"\b{name}=%([\w.\-<>]+)", self.text)
        return found[1] if found else None

    @property
    def callees(self) -> tuple[str, ...]:
        """The computations that it calls: loops, fusions, branches, what a reduction adds with."""
        called = _CALLS.findall(self.text)
        return tuple(name for one in called for name in _NAMES.findall(one[0] or one[1]))

    @property
    def written(self) -> tuple[ArrayShape, ...]:
        """What it writes. The tuple of one that only starts names its operand and a context as well."""
        if self.opcode == "copy-start":
            return self.arrays[:1]
        return self.arrays[1:2] if self.opcode.endswith("-start") else self.arrays

    @property
    def is_kernel(self) -> bool:
        """Whether it calls a Pallas kernel."""
        return self.opcode == "custom-call" and f'custom_call_target="{KERNEL}"' in self.text


Computation = dict[str, Instruction]


@dataclasses.dataclass
class Module:
    """A compiled module.

    Attributes:
      computations: By name; each has its instructions by name, in order.
      entry: The name of the first.
    """

    computations: dict[str, Computation]
    entry: str

    def passes(self, least_elements: int) -> list[str]:
        """Names of copies, transposes, reshapes, pads, slices of big arrays: they compute nothing.

        Args:
          least_elements: How big an array must be to count.
        """
        return [
            instruction.name
            for computation in self.computations.values()
            for instruction in computation.values()
            if instruction.opcode.removesuffix("-start") in _PASSES
            and any(array.elements >= least_elements for array in instruction.written)
            # One that is started ahead of its use and ends on the chip only fetches what is read anyway.
            and not (instruction.opcode.endswith("-start") and not _hbm(instruction.written))
        ]

    def kernels(self) -> list[str]:
        """Names of the Pallas calls, as in the compiler's dump."""
        return [i.name for c in self.computations.values() for i in c.values() if i.is_kernel]

    def traffic(self, kernel_bytes: Mapping[str, Sequence[int]]) -> int:
        """Bytes between memory and chip in one run.

        Args:
          kernel_bytes: What one call of each Pallas kernel moves, by the kernel's name: for each operand and each
            output, of which those that lie on the chip do not count; or one number for all.
        """
        return self._traffic(self.entry, kernel_bytes)

    def estimated_cycles(self) -> int:
        """The compiler's own guess for everything but Pallas calls; a loop's body as often as it runs."""
        return self._cycles(self.entry)

    def turns(self, loop: Instruction) -> int:
        """How often a `while` goes round: as XLA says, else what its condition compares with, or once if unknown."""
        known = _TRIPS.search(loop.text)
        if known:
            return int(known[1])
        condition = self.computations.get(loop.attribute("condition") or "", {})
        bounds = [
            re.search(r"constant\((\d+)\)", i.text) for i in condition.values() if i.opcode == "constant"
        ]
        known = [int(bound[1]) for bound in bounds if bound]
        return known[0] if len(known) == 1 else 1

    def runs(self) -> dict[str, int]:
        """How often each computation runs when the entry runs once: a loop's body as often as it goes round."""
        callers: dict[str, list[tuple[str, int]]] = {}
        for name, computation in self.computations.items():
            for instruction in computation.values():
                turns = self.turns(instruction) if instruction.opcode == "while" else 1
                for callee in instruction.callees:
                    callers.setdefault(callee, []).append((name, turns))
        found = {self.entry: 1}

        def count(name: str) -> int:
            if name not in found:
                found[name] = sum(turns * count(caller) for caller, turns in callers.get(name, ()))
            return found[name]

        return {name: count(name) for name in self.computations}

    def _cycles(self, name: str) -> int:
        total = 0
        for instruction in self.computations[name].values():
            if instruction.opcode == "while":
                total += self.turns(instruction) * self._cycles(instruction.attribute("body") or "")
            elif not instruction.is_kernel:
                found = _CYCLES.search(instruction.text)
                total += int(found[1]) if found else 0
        return total

    def _traffic(self, name: str, kernel_bytes: Mapping[str, Sequence[int]]) -> int:
        computation = self.computations[name]
        total = 0
        for instruction in computation.values():
            opcode = instruction.opcode
            if (
                opcode in _FREE
                or opcode.endswith(("-done", "-update"))
                or "AllocateBuffer" in instruction.text
            ):
                continue
            if opcode == "while":
                total += self.turns(instruction) * self._traffic(
                    instruction.attribute("body") or "", kernel_bytes
                )
            elif opcode in ("call", "async-start"):
                callee = instruction.attribute("to_apply") or instruction.attribute("calls")
                total += self._traffic(callee, kernel_bytes) if callee else 0
            elif opcode == "conditional":
                branches = re.search(r"branch_computations=\{([^}]*)\}", instruction.text)
                names = _NAMES.findall(branches[1]) if branches else []
                total += max((self._traffic(branch, kernel_bytes) for branch in names), default=0)
            elif instruction.is_kernel:
                total += self._kernel(instruction, computation, kernel_bytes[kernel_name(instruction.name)])
            else:
                total += self._one(instruction, computation)
        return total

    def _kernel(self, call: Instruction, computation: Computation, moved: Sequence[int]) -> int:
        operands = [computation[name].arrays for name in call.operands if name in computation]
        arrays = [array for one in operands for array in one] + list(call.written)
        if len(arrays) != len(moved):
            return sum(moved)
        return sum(size for size, array in zip(moved, arrays, strict=True) if array.in_hbm)

    def _one(self, instruction: Instruction, computation: Computation) -> int:
        """Bytes of one instruction that is no loop and no kernel."""
        operands = [computation[name] for name in dict.fromkeys(instruction.operands) if name in computation]
        inside = self.computations.get(instruction.attribute("calls") or "")
        if instruction.opcode == "fusion" and inside:
            return self._fusion(instruction, operands, inside)
        output = instruction.written
        written = _hbm(output)
        if instruction.opcode in ("slice", "dynamic-slice", "slice-start", "dynamic-slice-start", "gather"):
            size = sum(array.bytes for array in output)
            return written + (size if any(a.in_hbm for a in operands[0].arrays) else 0)
        if instruction.opcode == "dynamic-update-slice":
            update = operands[1].arrays
            return _hbm(update) + sum(a.bytes for a in update) * any(a.in_hbm for a in output)
        return written + sum(_hbm(operand.arrays) for operand in operands)

    def _fusion(self, fusion: Instruction, operands: list[Instruction], inside: Computation) -> int:
        parameters = sorted((i for i in inside.values() if i.opcode == "parameter"), key=_parameter_number)
        total, seen = 0, set()
        by_name = {operand.name: operand for operand in operands}
        for source, parameter in zip(fusion.operands, parameters, strict=False):
            if source in seen or source not in by_name:
                continue
            seen.add(source)
            if any(array.in_hbm for array in by_name[source].arrays):
                total += min(_read(parameter, inside), _hbm(by_name[source].arrays))
        root = next(i for i in inside.values() if i.is_root)
        written = [inside[name] for name in root.operands] if root.opcode == "tuple" else [root]
        for part, array in zip(written, fusion.arrays, strict=False):
            source = _behind_bitcasts(part, inside)
            if source.opcode == "dynamic-update-slice":
                total += sum(a.bytes for a in inside[source.operands[1]].arrays) * array.in_hbm
            else:
                total += array.bytes * array.in_hbm
        return total


def _parameter_number(parameter: Instruction) -> int:
    return int(parameter.text.partition("(")[2].partition(")")[0])


def kernel_name(call: str) -> str:
    """The name given to `pallas_call`, from that of its call in a module: `scan.3` is a call of `scan`."""
    return re.sub(r"(\.\d+|\.clone|\.remat\d*)+$", "", call)


def _hbm(arrays: tuple[ArrayShape, ...]) -> int:
    return sum(array.bytes for array in arrays if array.in_hbm)


def _behind_bitcasts(instruction: Instruction, inside: Computation) -> Instruction:
    while instruction.opcode == "bitcast":
        instruction = inside[instruction.operands[0]]
    return instruction


def _read(parameter: Instruction, inside: Computation) -> int:
    """Bytes of a parameter that a fusion reads: of slices if only those are used, else more than any array has."""
    users = [i for i in inside.values() if parameter.name in i.operands]
    total = 0
    for user in users:
        if user.opcode == "bitcast":
            total += _read(user, inside)
        elif user.opcode in ("slice", "dynamic-slice"):
            total += user.arrays[0].bytes
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == parameter.name:
            continue  # written in place
        else:
            return sys.maxsize
    return total


def read_module(text: str) -> Module:
    """Reads `compiled.as_text()`."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
            continue
        found = _INSTRUCTION.match(line)
        if found and current is not None:
            current[found[2]] = _instruction(found[2], found[3], bool(found[1]))
    return Module(computations, entry)


def _instruction(name: str, text: str, is_root: bool) -> Instruction:
    shape, rest = _split_shape(text)
    opcode, _, behind = rest.partition("(")
    inside = behind[: _closing(behind)]
    return Instruction(name, opcode, _arrays(shape), tuple(_NAMES.findall(inside)), rest, is_root)


def _split_shape(text: str) -> tuple[str, str]:
    """The shape, perhaps a tuple with brackets of its own, and what follows."""
    if not text.startswith("("):
        shape, _, rest = text.partition(" ")
        return shape, rest
    end = _closing(text[1:]) + 2
    return text[:end], text[end:].lstrip()


def _closing(text: str) -> int:
    """Where the bracket closes that was opened before `text`."""
    depth = 1
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if not depth:
            return place
    return len(text)


def _arrays(shape: str) -> tuple[ArrayShape, ...]:
    found = []
    for dtype, dims, layout in _ARRAY.findall(shape):
        elements = math.prod(int(n) for n in dims.split(",") if n)
        bits = _BITS.get(dtype) or int(re.sub(r"\D", "", dtype.partition("e")[0]) or 32)
        # Counters of loops are no traffic, wherever they lie.
        in_hbm = elements > 1 and not re.search(r"S\([1-9]\)", layout)
        found.append(ArrayShape(elements, elements * bits // 8, in_hbm))
    return tuple(found)
