"""Reads the compiler's final schedule of a kernel: how many VLIW bundles each loop issues a turn.

A bundle is one issue slot, a cycle unless something stalls, so turns x bundles is a floor under a kernel's cycles.
What the schedule does not show: waits for DMA, bank conflicts of strided access, branches.
"""

import dataclasses
import re
from collections.abc import Iterator

_LINE = re.compile(r"\s*(0x[0-9a-f]+|0)\s+([A-Z]{2})?\s*:\s*(>*)\s*\{(.*)")
_WAIT = re.compile(r"\b(?:vdelay|vnop|snop)\S*\s+(\d+)")
_TURNS = re.compile(r"scmp\.ge\.s32\.totalorder [^,]+, (\d+) /\* loop exit test \*/")


@dataclasses.dataclass
class Loop:
    """One loop of a kernel; the kernel itself is the outermost, of depth 0 and one turn.

    Attributes:
      depth: 1 for the loop over the grid.
      bundles: Issue slots a turn, without those of loops inside.
      turns: How often it goes round; None where the schedule does not say.
      inner: Loops inside.
    """

    depth: int
    bundles: int = 0
    turns: int | None = None
    inner: list["Loop"] = dataclasses.field(default_factory=list)

    def walk(self) -> Iterator["Loop"]:
        """Itself and all loops inside, outermost first."""
        yield self
        for loop in self.inner:
            yield from loop.walk()

    @property
    def cycles(self) -> int | None:
        """Cycles of the whole loop, or None where turns are unknown."""
        parts = [loop.cycles for loop in self.inner]
        if self.turns is None or None in parts:
            return None
        return self.turns * (self.bundles + sum(filter(None, parts)))

    @property
    def innermost(self) -> "Loop":
        """The loop without a loop inside that issues most a turn."""
        return max((loop for loop in self.walk() if not loop.inner), key=lambda loop: loop.bundles)


def read_schedule(text: str) -> Loop:
    """Reads a `final_bundles` file: the kernel as its outermost loop."""
    kernel = Loop(0, turns=1)
    open_loops, previous = [kernel], -1
    for line in text.splitlines():
        found = _LINE.match(line)
        if not found:
            # A bundle that holds a comment of several lines goes on; its exit test may stand there.
            _note_turns(open_loops[-1], line)
            continue
        address, mark, depth, rest = int(found[1], 16), found[2], len(found[3]), found[4]
        # A bundle without instructions carries no depth.
        depth = depth or (open_loops[-1].depth if rest.lstrip().startswith("}") else 0)
        del open_loops[depth + 1 :]
        if mark == "LB" and len(open_loops) == depth + 1:
            open_loops.pop()  # another loop of the same depth begins
        while len(open_loops) <= depth:
            outer = open_loops[-1]
            # A loop begins with a mark; bundles of its depth without one belong to the loop before.
            if mark == "LB" or not outer.inner:
                outer.inner.append(Loop(len(open_loops)))
            open_loops.append(outer.inner[-1])
        # Empty bundles may be left out of the text: count by address.
        open_loops[-1].bundles += address - previous + sum(int(n) for n in _WAIT.findall(rest))
        previous = address
        _note_turns(open_loops[-1], rest)
    return kernel


def _note_turns(loop: Loop, text: str) -> None:
    found = _TURNS.search(text)
    if found:
        loop.turns = int(found[1])
