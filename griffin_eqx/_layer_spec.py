"""One layer of a pattern, and the error that points into one. The public face is `griffin_eqx.pattern`."""

import difflib
import math
import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from griffin_eqx.errors import GriffinError

MAX_LAYERS = 10_000
MAX_TEXT = 100_000
MAX_DEPTH = 64

Value = int | float | bool | str

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
NOT_FINITE = ("nan", "inf", "infinity")
EXAMPLE = "write for example (rg_lru rg_lru local_mqa)@26"
_WINDOW = 70  # columns of a pattern that an error shows


class PatternError(GriffinError, ValueError):
    """Something is wrong at one place of a pattern. `str` shows the place with a caret and says what to do.

    Attributes:
      message: What is wrong, in one line.
      text: The pattern (or the rejected object's `repr`, where it was no string).
      start, end: The place, as a span of characters in `text`.
      hint: What to do, in one line, or None.
    """

    __module__ = "griffin_eqx.pattern"  # where users import it from, and what a traceback should say

    def __init__(self, message: str, text: str, start: int, end: int, hint: str | None = None):
        super().__init__(message, text, start, end, hint)  # all of it, so that pickle and copy can rebuild it
        self.message = message
        self.text = text
        self.start = start
        self.end = end
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.message, *_point_at(self.text, self.start, self.end)]
        return "\n".join(lines if self.hint is None else [*lines, self.hint])


def fold_name(name: str) -> str:
    """The spelling of a name or key that all its spellings share.

    >>> fold_name("RG-LRU")
    'rg_lru'
    """
    return name.lower().replace("-", "_")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like `name`, for "did you mean"; None if none is.

    >>> nearest("rglru", ["rg_lru", "local_mqa"])
    'rg_lru'
    """
    if len(name) > 100:  # difflib takes quadratic time, and nobody mistypes that
        return None
    folded = {fold_name(candidate): candidate for candidate in sorted(known)}
    close = difflib.get_close_matches(fold_name(name), folded, n=1)
    return folded[close[0]] if close else None


@dataclass(frozen=True, eq=False)
class LayerSpec:
    """One layer of a pattern: a block's name and its options, as written. Nothing says yet that they exist.

    Two specs are equal when they print the same, so the types of values count and where they stood does not.

    Attributes:
      name: The name, folded.
      options: Pairs of folded key and value, in the order of the keys.
      span: Where the name stands in the pattern's text.
      option_spans: Where each option stands, by folded key.

    Raises:
      PatternError: If it could not be written in a pattern: a malformed name or key, a key twice, a value
        that is no `Value`, not finite, beyond 64 bits, or not one word.

    >>> print(LayerSpec("local-mqa", (("window_size", 512), ("soft_cap", 30.0))))
    local_mqa[soft_cap=30.0,window_size=512]
    """

    name: str
    options: tuple[tuple[str, Value], ...] = ()
    span: tuple[int, int] = field(default=(0, 0), repr=False)
    option_spans: Mapping[str, tuple[int, int]] = field(default_factory=dict, repr=False)
    _text: str = field(init=False, repr=False)

    def __post_init__(self):
        folded = {_checked_name(key): value for key, value in self.options}
        if len(folded) < len(self.options):
            shown = repr([key for key, _ in self.options])
            raise PatternError("an option is given twice", shown, 0, len(shown), "keep one of the two")
        name, options = _checked_name(self.name), tuple(sorted(folded.items(), key=lambda option: option[0]))
        written = ",".join(f"{key}={_print_value(value)}" for key, value in options)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "options", options)
        object.__setattr__(self, "_text", f"{name}[{written}]" if written else name)

    def __str__(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, LayerSpec) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)


def _print_value(value: Value) -> str:
    """The value as a pattern has it: reads back as the same value of the same type, or `PatternError`."""
    if type(value) is bool:
        return str(value).lower()
    if type(value) is int and -(2**63) <= value < 2**63:
        return str(value)
    if type(value) is float and math.isfinite(value):
        return repr(value)
    if type(value) is str and WORD.fullmatch(value) and value.lower() not in ("true", "false", *NOT_FINITE):
        return value
    shown = reprlib.repr(value)
    message = f"a pattern cannot hold this {type(value).__name__}"
    raise PatternError(
        message, shown, 0, len(shown), "use a 64-bit integer, a finite float, a bool or one word"
    )


def _checked_name(name: str) -> str:
    if NAME.fullmatch(name):
        return fold_name(name)
    hint = "use a letter, then letters, digits, '_' or '-'"
    raise PatternError("a pattern cannot hold this name", name, 0, len(name), hint)


def _point_at(text: str, start: int, end: int) -> tuple[str, str]:
    """The part of `text` around a span, and a line with carets under the span."""
    before = [_shown(c) for c in text[max(0, start - _WINDOW) : start]]
    after = [_shown(c) for c in text[start : start + _WINDOW]]
    left = _fit(before[::-1], _WINDOW // 2)
    right = _fit(after, _WINDOW - sum(map(len, left)))
    left = _fit(before[::-1], _WINDOW - sum(map(len, right)))[::-1]
    head = "..." if len(left) < start else ""
    tail = "..." if start + len(right) < len(text) else ""
    carets = max(1, sum(map(len, right[: end - start])))
    lead = head + "".join(left)
    return f"  {lead}{''.join(right)}{tail}", "  " + " " * len(lead) + "^" * carets


def _fit(pieces: list[str], columns: int) -> list[str]:
    """As many of the first pieces as fit."""
    for i, piece in enumerate(pieces):
        columns -= len(piece)
        if columns < 0:
            return pieces[:i]
    return pieces


def _shown(character: str) -> str:
    """The character, or an escape of it where a terminal might not give it exactly one column."""
    if " " <= character <= "~":
        return character
    return character.encode("unicode_escape").decode("ascii")
