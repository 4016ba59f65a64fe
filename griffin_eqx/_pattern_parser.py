"""Reads a layer pattern; the grammar stands in `griffin_eqx.pattern`."""

import math
import re
import unicodedata
from typing import NoReturn

from griffin_eqx._layer_spec import (
    EXAMPLE,
    MAX_DEPTH,
    MAX_LAYERS,
    MAX_TEXT,
    NAME,
    NOT_FINITE,
    WORD,
    LayerSpec,
    PatternError,
    Value,
    fold_name,
)

_SPACES = re.compile(r"[ \t\r\n]*")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_COUNT_CHUNK = re.compile(r"[A-Za-z0-9_.+-]*")
_VALUE_CHUNK = re.compile(r"[^ \t\r\n,=()\[\]]*")
_MAX_NUMBER = 100  # characters: beyond what a float can tell apart, and quick for int() and float()

_SIGNS = {
    "]": "options go in square brackets after a name: local_mqa[window_size=512]",
    "[": "options go in square brackets after a name: local_mqa[window_size=512]",
    "=": "options go in square brackets after a name: local_mqa[window_size=512]",
    "*": "a count goes after a block or a group: rg_lru*2",
    "@": "a depth goes after a block or a group: (rg_lru local_mqa)@12",
    ",": "write one comma or none between two items, none at the ends",
    ")": "take it out, or open the group with '('",
}


class _Group:
    """Items in brackets, or the whole pattern. Counted while it is read, expanded only at the end."""

    def __init__(self, opened: int):
        self.opened = opened  # where its bracket stands
        self.items: list[tuple[LayerSpec | _Group, int]] = []  # with the number of layers taken from each
        self.size = 0

    def expand(self, limit: int) -> list[LayerSpec]:
        """The first `limit` of the layers."""
        layers: list[LayerSpec] = []
        for part, taken in self.items:
            taken = min(taken, limit - len(layers))
            if taken == 0:
                break
            cycle = [part] if isinstance(part, LayerSpec) else part.expand(min(part.size, taken))
            layers += (cycle * -(-taken // len(cycle)))[:taken]
        return layers


def read_layers(text: str) -> tuple[LayerSpec, ...]:
    """Reads a pattern and expands it; raises `PatternError`."""
    return _Parser(text).parse()


class _Parser:
    """Reads a pattern from left to right, with the open brackets on a list instead of Python's stack."""

    def __init__(self, text: str):
        self.text = text
        self.at = 0

    def parse(self) -> tuple[LayerSpec, ...]:
        """All layers of the text."""
        if len(self.text) > MAX_TEXT:
            message = f"a pattern has at most {MAX_TEXT:,} characters: got {len(self.text):,}"
            self.fail(message, MAX_TEXT, len(self.text), "use *n and @n to repeat layers")
        if _SPACES.fullmatch(self.text):
            self.fail("the pattern is empty", 0, len(self.text), EXAMPLE)
        groups = [_Group(0)]
        self.skip_space()
        while True:
            start = self.at
            if self.take("("):
                self.open_group(groups, start)
                continue
            part = self.block(groups)
            self.add(groups[-1], part, start)
            separated = self.separator()
            while self.peek() == ")":
                part = self.close_group(groups)
                self.add(groups[-1], part, part.opened)
                separated = self.separator()
            if self.at == len(self.text):
                break
            if not separated:
                self.fail_unseparated()
        if len(groups) > 1:
            self.fail_open(groups)
        return tuple(groups[0].expand(groups[0].size))

    # Parts of the grammar; each leaves `at` behind what it read.

    def open_group(self, groups: list[_Group], start: int) -> None:
        if len(groups) > MAX_DEPTH:
            message = f"more than {MAX_DEPTH} brackets inside one another"
            self.fail(message, start, start + 1, "take out brackets that hold a single item")
        groups.append(_Group(start))
        self.skip_space()

    def close_group(self, groups: list[_Group]) -> _Group:
        if len(groups) == 1:
            self.fail("')' closes no bracket", self.at, self.at + 1, _SIGNS[")"])
        self.at += 1
        return groups.pop()

    def add(self, group: _Group, part: LayerSpec | _Group, start: int) -> None:
        """Reads the suffix of `part`, which starts at `start`, and puts both into the group."""
        size = 1 if isinstance(part, LayerSpec) else part.size
        end = self.at
        self.skip_space()
        sign, sign_at = self.peek(), self.at
        if sign in ("*", "@"):
            self.at += 1
            count = self.count(sign)
            size = size * count if sign == "*" else count
            start, end = sign_at, self.at
            self.skip_space()
            if self.peek() in ("*", "@"):
                hint = f"bracket what comes before it: (rg_lru{sign}{count}){self.peek()}2"
                self.fail("an item takes one count or depth", self.at, self.at + 1, hint)
        self.at = end
        group.items.append((part, size))
        group.size += size
        if group.size > MAX_LAYERS:
            got = f"{group.size:,}" if group.size < 10**12 else "many more"
            message = f"a pattern has at most {MAX_LAYERS:,} layers: this makes it {got}"
            self.fail(message, start, end, "repeat less")

    def count(self, sign: str) -> int:
        what = "count" if sign == "*" else "depth"
        behind = self.at
        self.skip_space()
        start, chunk = self.chunk(_COUNT_CHUNK)
        hint = f"write a whole number from 1 to {MAX_LAYERS}: rg_lru{sign}12"
        if not chunk and self.peek() > "~":
            self.fail_unexpected(hint)
        if not chunk:
            self.fail(f"no {what} after '{sign}'", behind - 1, behind, hint)
        if not (chunk.isdigit() and chunk.strip("0")):
            self.fail(f"a {what} is a whole number from 1 up: got '{_clip(chunk)}'", start, self.at, hint)
        digits = chunk.lstrip("0")
        return int(digits) if len(digits) <= 9 else 10**12  # int() refuses thousands of digits

    def separator(self) -> bool:
        start = self.at
        self.skip_space()
        comma = self.at
        if self.take(","):
            self.skip_space()
            if self.peek() in ("", ")"):
                self.fail("nothing comes after the comma", comma, comma + 1, "take the comma out")
        return self.at > start

    def block(self, groups: list[_Group]) -> LayerSpec:
        start, name = self.chunk(NAME)
        if not name:
            self.fail_no_item(groups)
        end = self.at
        self.skip_space()
        opened = self.at
        if not self.take("["):
            self.at = end
            return LayerSpec(name, (), (start, end))
        options: dict[str, Value] = {}
        spans: dict[str, tuple[int, int]] = {}
        while True:
            self.option(options, spans, opened)
            if self.take("]"):
                return LayerSpec(name, tuple(options.items()), (start, end), spans)
            if self.at == len(self.text):
                self.fail_open_options(opened)
            if not self.take(","):
                if self.peek() > "~":
                    self.fail_unexpected()
                hint = "write options as local_mqa[window_size=512,num_heads=8]"
                self.fail("expected ',' or ']' after an option", self.at, self.at + 1, hint)

    def option(self, options: dict[str, Value], spans: dict[str, tuple[int, int]], opened: int) -> None:
        hint = "write for example window_size=512"
        self.skip_space()
        start, chunk = self.chunk(_VALUE_CHUNK)
        end = self.at
        self.skip_space()
        if self.at == len(self.text):
            self.fail_open_options(opened)
        if not chunk:
            self.fail("an option is missing", self.at, self.at + 1, hint)
        self.check_ascii(start, end)
        if not self.take("="):
            self.fail(f"an option is a key and a value: got '{_clip(chunk)}'", start, end, hint)
        if not NAME.fullmatch(chunk):
            self.fail(
                f"not a key: '{_clip(chunk)}'", start, end, "use a letter, then letters, digits, '_' or '-'"
            )
        if fold_name(chunk) in options:
            self.fail(f"'{_clip(fold_name(chunk))}' is given twice", start, end, "keep one of the two")
        options[fold_name(chunk)] = self.value(_clip(chunk))
        spans[fold_name(chunk)] = (start, self.at)
        self.skip_space()

    def value(self, key: str) -> Value:
        self.skip_space()
        start, chunk = self.chunk(_VALUE_CHUNK)
        if not chunk:
            self.fail(f"'{key}' has no value", start, start + 1, f"write for example {key}=2")
        self.check_ascii(start, self.at)
        lower, shown = chunk.lower(), _clip(chunk)
        if lower in ("true", "false"):
            return lower == "true"
        if _FLOAT.fullmatch(chunk):
            return self.number(chunk, start)
        if lower.lstrip("+-") in NOT_FINITE:
            self.fail(f"a value is finite: got {shown}", start, self.at, "write a number, or the word none")
        if not WORD.fullmatch(chunk):
            hint = "a value is an integer, a float, true, false, or a word that begins with a letter"
            self.fail(f"not a value: '{shown}'", start, self.at, hint)
        return chunk

    def number(self, chunk: str, start: int) -> int | float:
        shown = _clip(chunk)
        if len(chunk) > _MAX_NUMBER:
            message = f"a number has at most {_MAX_NUMBER} characters: got {shown}"
            self.fail(message, start, self.at, "round it")
        if not _INTEGER.fullmatch(chunk):
            number = float(chunk)
            if math.isinf(number):
                self.fail(f"a value is finite: got {shown}", start, self.at, "write a smaller number")
            return number
        if not -(2**63) <= int(chunk) < 2**63:
            self.fail(f"an integer fits 64 bits: got {shown}", start, self.at, "write a float, such as 1e20")
        return int(chunk)

    # Moving along.

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self, sign: str) -> bool:
        taken = self.peek() == sign
        self.at += taken
        return taken

    def skip_space(self) -> None:
        self.chunk(_SPACES)

    def chunk(self, expression: re.Pattern[str]) -> tuple[int, str]:
        start = self.at
        if match := expression.match(self.text, start):
            self.at = match.end()
        return start, self.text[start : self.at]

    # Giving up.

    def fail(self, message: str, start: int, end: int, hint: str) -> NoReturn:
        raise PatternError(message, self.text, start, min(end, len(self.text)), hint)

    def fail_unexpected(
        self, hint: str = "separate blocks by white space or commas, all in ASCII"
    ) -> NoReturn:
        """Fails at a character that no pattern has here."""
        character = self.peek()
        if " " <= character <= "~":
            self.fail(f"unexpected '{character}'", self.at, self.at + 1, _SIGNS.get(character, hint))
        name = unicodedata.name(character, "").strip()
        if meant := _ascii_for(character):
            hint = f"did you mean '{meant}'?"
        self.fail(f"unexpected character U+{ord(character):04X} {name}".rstrip(), self.at, self.at + 1, hint)

    def check_ascii(self, start: int, end: int) -> None:
        for at in range(start, end):
            if not " " <= self.text[at] <= "~":
                self.at = at
                self.fail_unexpected()

    def fail_no_item(self, groups: list[_Group]) -> NoReturn:
        """Fails where a block or a group should begin."""
        start, sign = self.at, self.peek()
        if sign == "":
            self.fail_open(groups)
        if sign == ")" and len(groups) > 1:
            self.fail("empty brackets", groups[-1].opened, start + 1, "put a block in them or take them out")
        if sign == ")":
            self.fail("')' closes no bracket", start, start + 1, _SIGNS[")"])
        if sign == ",":
            self.fail("nothing comes before the comma", start, start + 1, _SIGNS[","])
        if sign in ("*", "@"):
            self.fail(f"nothing comes before '{sign}'", start, start + 1, _SIGNS[sign])
        if "0" <= sign <= "9":
            _, chunk = self.chunk(_COUNT_CHUNK)
            self.fail(f"a name begins with a letter: got '{_clip(chunk)}'", start, self.at, _SIGNS["*"])
        self.fail_unexpected()

    def fail_unseparated(self) -> NoReturn:
        """Fails right behind an item."""
        if self.peek() == "(" or NAME.match(self.text, self.at):
            self.fail("two items stand together", self.at, self.at + 1, "put a space or a comma between them")
        self.fail_unexpected()

    def fail_open(self, groups: list[_Group]) -> NoReturn:
        at = groups[-1].opened
        self.fail("'(' is never closed", at, at + 1, "add ')' after the last item of the group")

    def fail_open_options(self, at: int) -> NoReturn:
        self.fail("'[' is never closed", at, at + 1, "add ']' after the last option")


def _clip(chunk: str) -> str:
    return chunk if len(chunk) <= 40 else chunk[:37] + "..."


def _ascii_for(character: str) -> str | None:
    """What a look-alike was probably meant to be: a digit of another script, a full-width sign, a dash."""
    digit = unicodedata.digit(character, None)
    if digit is not None:
        return str(digit)
    if unicodedata.category(character) == "Pd" or character == "\N{MINUS SIGN}":
        return "-"
    if character in "\N{MULTIPLICATION SIGN}\N{ASTERISK OPERATOR}":
        return "*"
    plain = unicodedata.normalize("NFKC", character)
    return plain if all(" " <= c <= "~" for c in plain) else None
