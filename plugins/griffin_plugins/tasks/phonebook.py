"""Phone book: look a number up."""

import dataclasses
import itertools
from typing import ClassVar

import numpy as np
from jaxtyping import Int32

from griffin_eqx.data.packing import IGNORE, Batch
from griffin_eqx.data.tokenizer import ByteTokenizer
from griffin_eqx.errors import OptionError
from griffin_eqx.synthetic import AbstractSyntheticTask
from griffin_eqx.task import Metric
from griffin_plugins.tasks._draws import distinct
from griffin_plugins.tasks._names import FIRST, LAST

_ABSENT = -1  # No byte here: rows are laid out with gaps, and closed up at the end.
_NAMES = [f"{first} {last}: ".encode() for first, last in itertools.product(FIRST.split(), LAST.split())]
_SHORTEST, _LONGEST = min(map(len, _NAMES)), max(map(len, _NAMES))
_NAME_BYTES = np.array(
    [[*name, *[_ABSENT] * (_LONGEST - len(name))] for name in _NAMES], np.int32
)  # [names, longest]


@dataclasses.dataclass(frozen=True)
class PhonebookOptions:
    """Options of the phone book.

    Attributes:
      digits: Of a number.
      examples: Entries shown once more before the question, as examples of look-ups.
    """

    digits: int = 10
    examples: int = 2

    def __post_init__(self):
        if not 1 <= self.digits <= 100:
            raise OptionError("digits", f"1 to 100, got {self.digits}")
        if not 0 <= self.examples <= 100:
            raise OptionError("examples", f"0 to 100, got {self.examples}")


class PhonebookTask(AbstractSyntheticTask):
    """A book of names and numbers, two look-ups as examples, and a name whose number is asked for.

    Griffin's look-up (De et al. 2024, section 6.2) in the format of Jelassi et al. (2024, arXiv:2402.01032), in bytes:
    lines `First Last: NNNNNNNNNN`, the first digit 6 to 9; an empty line; two lines of the book; an empty line; the
    name, a colon and the number. The one asked for is none of the examples. A row begins with the DOCUMENT token,
    as every text does, and ends before the number's last digit, which nothing follows; its targets are the digits.

    The paper asks a model trained on text. Here it is also what is trained, so the names are our own (all pairs of
    about a hundred first and as many last names, none twice in a book, where theirs may repeat), and the book
    is as long as the row allows: longer rows, longer books. The metric is theirs: numbers right to the last digit.
    What is judged are the digits given the right ones before; that all of them are right is the same as that greedy
    decoding gives the number.
    """

    name: ClassVar[str] = "phonebook"
    summary: ClassVar[str] = "look up a number in a book of names and numbers, in bytes"
    source: ClassVar[str] = (
        "De et al. 2024, arXiv:2402.19427, section 6.2; format of Jelassi et al. 2024, arXiv:2402.01032"
    )
    metric: ClassVar[Metric] = "exact"
    Options: ClassVar[type] = PhonebookOptions

    @property
    def vocab_size(self) -> int:
        """That of bytes: 256 and DOCUMENT."""
        return ByteTokenizer().vocab_size

    @property
    def min_seq_len(self) -> int:
        """A book of the examples and the one asked for, all with the longest names."""
        entry = _LONGEST + self.options.digits + 1
        book = (self.options.examples + 1) * entry + 1
        shown = self.options.examples * entry + (self.options.examples > 0)
        return 1 + book + shown + _LONGEST + self.options.digits - 1

    def rows(self, rng: np.random.Generator, num_rows: int, seq_len: int) -> Batch:
        """Draws rows: entries 0 and 1 are the examples, 2 is asked for, and all stand in the book in random order."""
        digits, examples = self.options.digits, self.options.examples
        at_most = min(seq_len // (_SHORTEST + digits + 1), len(_NAMES))
        entries = self._entries(rng, num_rows, at_most)
        size = (entries != _ABSENT).sum(axis=2)
        fixed = 1 + 1 + size[:, :examples].sum(axis=1) + (examples > 0) + size[:, examples] - 2
        entries[np.cumsum(size, axis=1) + fixed[:, None] > seq_len] = _ABSENT
        # Absent entries leave no trace, so a random order of all is one of those present.
        order = rng.permuted(np.tile(np.arange(at_most), (num_rows, 1)), axis=1)
        book = np.take_along_axis(entries, order[..., None], axis=1)
        asked = entries[:, examples]
        newline = np.full((num_rows, 1), ord("\n"), np.int32)
        text = [book.reshape(num_rows, -1), newline]
        if examples:
            text += [entries[:, :examples].reshape(num_rows, -1), newline]
        document = np.full((num_rows, 1), ByteTokenizer.DOCUMENT, np.int32)
        return _close_up(
            np.concatenate([document, *text, asked[:, :-2]], axis=1), asked[:, -1 - digits : -1], seq_len
        )

    def _entries(
        self, rng: np.random.Generator, num_rows: int, count: int
    ) -> Int32[np.ndarray, "batch count width"]:
        """Entries of a book, their newline included, with gaps behind names that are not the longest."""
        names = _NAME_BYTES[distinct(rng, num_rows, count, len(_NAMES))]
        numbers = rng.integers(0, 10, (num_rows, count, self.options.digits), np.int32)
        numbers[..., 0] = rng.integers(6, 10, (num_rows, count))
        newline = np.full((num_rows, count, 1), ord("\n"), np.int32)
        return np.concatenate([names, numbers + ord("0"), newline], axis=2)


def _close_up(
    text: Int32[np.ndarray, "batch width"], answer: Int32[np.ndarray, "batch digits"], seq_len: int
) -> Batch:
    """Rows without their gaps, padded; the answer is the targets of their last tokens."""
    present = text != _ABSENT
    column = np.cumsum(present, axis=1) - 1
    row = np.broadcast_to(np.arange(len(text))[:, None], text.shape)
    length = present.sum(axis=1, dtype=np.int32)
    tokens = np.zeros((len(text), seq_len), np.int32)
    tokens[row[present], column[present]] = text[present]
    targets = np.full_like(tokens, IGNORE)
    last = length[:, None] - np.arange(answer.shape[1], 0, -1)
    np.put_along_axis(targets, last, answer, axis=1)
    positions = np.arange(seq_len, dtype=np.int32)
    return Batch(tokens, targets, np.where(positions < length[:, None], positions, 0), length)
