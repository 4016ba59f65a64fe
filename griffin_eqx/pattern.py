r"""The layer-pattern language: a model's temporal-mixing blocks, first layer to last, as a string.

```
pattern = item { separator item }              separator = white space or ","
item    = ( block | "(" pattern ")" ) [ "*" count | "@" depth ]
block   = name [ "[" option { "," option } "]" ]
option  = key "=" value                        integers, floats, true, false, words
name    = a letter, then letters, digits, "_" or "-"; case and "-"/"_" do not matter
```

`*n` repeats n times; `@n` cycles its group until there are n layers and cuts the rest.

>>> Pattern.parse("(rg_lru rg_lru local_mqa)@26").runs[0].repeats
8
>>> str(Pattern.parse("rg_lru, RG-LRU local_mqa[ window_size = 512 ] (rg_lru) * 2"))
'rg_lru*2 local_mqa[window_size=512] rg_lru*2'

What the grammar leaves open:

- Space, tab and new line are white space. It may also stand around every sign (`= , * @` and brackets),
  before `[` included. Two items need a space or a comma between them, brackets or not; one comma at most,
  none at the ends.
- An item takes one suffix: `rg_lru@12*2` is an error, `(rg_lru@12)*2` is not.
- Counts are whole numbers from 1 up. An integer value fits 64 bits, a float is finite (`1e-3`, not `nan`),
  `true` and `false` are written in any case. A word is a letter, then letters, digits, `_`, `-` or `.`, and
  keeps its case.
- Keys fold like names. A key may stand once in a block; the order of options does not matter. Values of
  different types differ: `1`, `1.0` and `true` are three values.
- Everything is ASCII. The limits are `MAX_TEXT` characters, `MAX_LAYERS` layers in any part of the pattern,
  even one that a later `@n` would cut, and `MAX_DEPTH` brackets inside one another.

Only syntax is known here; the registry checks names and options. Whatever is wrong is a `PatternError`:

>>> Pattern.parse("rg_lru*3 local_mqa[512]")
Traceback (most recent call last):
griffin_eqx.pattern.PatternError: an option is a key and a value: got '512'
  rg_lru*3 local_mqa[512]
                     ^^^
write for example window_size=512
"""

import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from griffin_eqx._layer_spec import (
    EXAMPLE,
    MAX_DEPTH,
    MAX_LAYERS,
    MAX_TEXT,
    LayerSpec,
    PatternError,
    Value,
    fold_name,
    nearest,
)
from griffin_eqx._pattern_parser import read_layers
from griffin_eqx._runs import LAYER_COST, segments

__all__ = [
    "MAX_DEPTH",
    "MAX_LAYERS",
    "MAX_TEXT",
    "LayerSpec",
    "Pattern",
    "PatternError",
    "Run",
    "Value",
    "fold_name",
    "nearest",
]


class Run(NamedTuple):
    """Layers `unit`, `repeats` times over."""

    unit: tuple[LayerSpec, ...]
    repeats: int


@dataclass(frozen=True, eq=False, repr=False)
class Pattern:
    """The layers of a model, first to last. Immutable, hashable; made by `Pattern.parse`.

    Two patterns are equal when their expanded layers are. `str(pattern)` depends on the layers alone and
    parses back to an equal pattern. It writes few names and counts: `*n` for whole repeats and `@n` where
    the last one is cut, for units that stand twice at least. In brackets a pair of layers is written out.

    Attributes:
      text: The pattern as it was written; the spans of the layers point into it.
      layers: One `LayerSpec` a layer, expanded.

    >>> Pattern.parse("(R L)*2") == Pattern.parse("r, l, r, l")
    True
    >>> print(Pattern.parse("r@2 l r*2 l r"))
    (r r l)@7
    """

    text: str
    layers: tuple[LayerSpec, ...]

    @staticmethod
    def parse(text: str) -> "Pattern":
        """Reads a pattern; the module's docstring has the grammar.

        Raises:
          PatternError: If `text` is not a pattern, whatever else it may be.
        """
        if not isinstance(text, str):
            shown = reprlib.repr(text)
            message = f"a pattern is a string: got {type(text).__name__}"
            raise PatternError(message, shown, 0, len(shown), EXAMPLE)
        return _checked_length(Pattern(text, read_layers(text)))

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The layers as repeated units, with the fewest layers in all units together (those get traced).

        Ties go to fewer runs, then to the longest first run, and so on from left to right.
        """
        cut = segments(_numbered(self.layers), count_cost=0, cut_cycles=False)
        return tuple(
            Run(self.layers[s.start : s.start + s.period], (s.end - s.start) // s.period)
            if s.period
            else Run(self.layers[s.start : s.end], 1)
            for s in cut
        )

    def map(self, fn: Callable[[LayerSpec], LayerSpec]) -> "Pattern":
        """The pattern with every layer replaced by `fn` of it. `fn` is called once for each distinct layer.

        Raises:
          PatternError: If the new pattern would be longer than `MAX_TEXT`.
        """
        new = {layer: fn(layer) for layer in dict.fromkeys(self.layers)}  # keeps the first of equal layers
        return _checked_length(Pattern(self.text, tuple(new[layer] for layer in self.layers)))

    @cached_property
    def _canonical(self) -> str:
        # A count costs half a layer here, so that `rg_lru*2` is written, and a whole one in brackets, so that
        # the paper's `(rg_lru rg_lru local_mqa)` is.
        return _print_layers(self.layers, _numbered(self.layers), LAYER_COST // 2)

    def __str__(self) -> str:
        return self._canonical

    def __repr__(self) -> str:
        return f"Pattern.parse({self._canonical!r})"

    def __len__(self) -> int:
        return len(self.layers)

    def __eq__(self, other: object) -> bool:
        return self.layers == other.layers if isinstance(other, Pattern) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._canonical)  # printed once, and a string remembers its hash; a tuple does not


# Printing


def _numbered(layers: tuple[LayerSpec, ...]) -> list[int]:
    """A small integer for each layer, equal for equal layers."""
    numbers: dict[LayerSpec, int] = {}
    return [numbers.setdefault(layer, len(numbers)) for layer in layers]


def _print_layers(layers: tuple[LayerSpec, ...], numbers: list[int], count_cost: int) -> str:
    items = []
    for start, end, period in segments(numbers, count_cost=count_cost, cut_cycles=True):
        if period == 0:
            items += map(str, layers[start:end])
            continue
        unit = slice(start, start + period)
        # The nesting stays below log2(MAX_LAYERS): a unit stands twice at least.
        printed = _print_layers(layers[unit], numbers[unit], LAYER_COST)
        whole, rest = divmod(end - start, period)
        suffix = f"@{end - start}" if rest else f"*{whole}"
        items.append((printed if period == 1 else f"({printed})") + suffix)
    return " ".join(items)


def _checked_length(pattern: Pattern) -> Pattern:
    """Refuses a pattern that prints so long that it would not parse back."""
    plain = len(pattern.layers) + sum(len(str(layer)) for layer in pattern.layers)
    if plain > MAX_TEXT and len(str(pattern)) > MAX_TEXT:
        message = f"written out, the pattern is longer than {MAX_TEXT:,} characters"
        raise PatternError(message, pattern.text, 0, len(pattern.text), "use fewer or shorter options")
    return pattern
