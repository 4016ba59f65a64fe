"""Tokenizers: text to token ids and back."""

import abc
import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, Integer, UInt


class TokenizerFile(NamedTuple):
    """The file that a tokenizer was read from: a run keeps a copy of it.

    Attributes:
      name: `tokenizer.json` or `tokenizer.model`, whatever it was called where it came from.
      content: Its bytes.
    """

    name: str
    content: bytes


class Tokenizer(abc.ABC):
    """Turns text into token ids and back.

    One id, `document`, is no text: the pipeline puts it before every document, so that it also ends the
    document before. `encode` never gives it.
    """

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Names the tokenizer in configs and reports."""

    @property
    @abc.abstractmethod
    def digest(self) -> str:
        """SHA-256 (hex) of all that decides its ids: two tokenizers with one digest encode alike."""

    @property
    @abc.abstractmethod
    def vocab_size(self) -> int:
        """The number of ids, specials included; ids run from 0 to `vocab_size - 1`."""

    @property
    @abc.abstractmethod
    def document(self) -> int:
        """The id that begins every document."""

    @property
    def ends(self) -> tuple[int, ...]:
        """The ids after which no text of a document follows: what writing stops at. `document` is one of them."""
        return (self.document,)

    @property
    def file(self) -> TokenizerFile | None:
        """The file that holds all of it; None for one that needs none."""
        return None

    @property
    @abc.abstractmethod
    def byte_counts(self) -> Int64[np.ndarray, " vocab_size"]:
        """How many bytes of text each id stands for; 0 for specials.

        Where a tokenizer puts a space of its own before every text, `document` stands for -1: so a document's
        ids, its `document` included, always come to its bytes.
        """

    def num_bytes(self, ids: Integer[np.ndarray, "*shape"]) -> int:
        """Counts the bytes of text that ids stand for; negative ones, which are no targets, for none.

        Bits per byte = (nats of all targets) / ln 2 / (bytes of all targets), whatever the tokenizer.
        """
        return int(self.byte_counts[ids[ids >= 0]].sum())

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """The smallest of uint16 and uint32 that holds every id."""
        return np.uint16 if self.vocab_size <= 2**16 else np.uint32

    @abc.abstractmethod
    def encode(self, text: str | bytes) -> UInt[np.ndarray, " seq_len"]:
        """Gives the ids of `text`, in `dtype`, without specials; what looks like a special in it is text.

        Raises:
          DataError: If the text is not what this tokenizer can read, such as bytes that are no UTF-8.
        """

    @abc.abstractmethod
    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """Gives the text of `ids`; specials are dropped, what is not valid text is replaced.

        Raises:
          ValueError: If an id is not of this vocabulary.
        """


class ByteTokenizer(Tokenizer):
    """The 256 bytes, and one id that begins a document: every text in every language, nothing to train.

    >>> tokenizer = ByteTokenizer()
    >>> tokenizer.encode("né").tolist()
    [110, 195, 169]
    >>> tokenizer.decode([256, 110, 195, 169, 195])
    'né\ufffd'
    """

    DOCUMENT = 256
    _BYTE_COUNTS = np.array([1] * 256 + [0])

    @property
    def name(self) -> str:
        """`bytes`."""
        return "bytes"

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of a sentence that defines the ids."""
        return hashlib.sha256(b"ids 0 to 255 are the bytes, 256 begins a document").hexdigest()

    @property
    def vocab_size(self) -> int:
        """257."""
        return 257

    @property
    def document(self) -> int:
        """256."""
        return self.DOCUMENT

    @property
    def byte_counts(self) -> Int64[np.ndarray, " vocab_size"]:
        """1 for each byte."""
        return self._BYTE_COUNTS

    def encode(self, text: str | bytes) -> UInt[np.ndarray, " seq_len"]:
        """Gives the bytes of `text` as uint16; a string is taken as UTF-8.

        Bytes that the operating system could not read as text, as in command-line arguments, come back as the
        bytes that they were (`surrogateescape`).

        Raises:
          UnicodeEncodeError: If a string holds any other half of a surrogate pair.
        """
        raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        return np.frombuffer(raw, np.uint8).astype(np.uint16)

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """Gives the text of `ids`, any integers; `DOCUMENT` is dropped, invalid UTF-8 becomes U+FFFD.

        Raises:
          ValueError: If an id lies outside 0 to 256.
        """
        array = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), np.int64)
        wrong = array[(array < 0) | (array >= self.vocab_size)]
        if wrong.size:
            raise ValueError(f"ByteTokenizer has ids 0 to {self.vocab_size - 1}: got {wrong[0]}.")
        return array[array < 256].astype(np.uint8).tobytes().decode("utf-8", "replace")
