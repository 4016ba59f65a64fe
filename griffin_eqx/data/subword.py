"""What tokenizers from a file share: their text, their ids, their errors."""

import hashlib
from collections.abc import Iterable

import numpy as np

from griffin_eqx.data.errors import DataError

SPACE = "\u2581"
"""How pieces write a space."""


def digest(kind: str, content: bytes) -> str:
    """SHA-256 (hex) of a tokenizer's file, apart for each kind."""
    return hashlib.sha256(kind.encode() + b"\0" + content).hexdigest()


def as_text(text: str | bytes) -> str:
    """The text that bytes, or a command's argument, hold.

    Raises:
      DataError: If it is no UTF-8.
    """
    try:
        # An argument that was no text comes with surrogates in it, which stand for its bytes.
        raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        return raw.decode("utf-8")
    except UnicodeError as error:
        at = getattr(error, "start", 0)
        raise DataError(
            f"This is no UTF-8 text, which sub-word tokenizers need: {getattr(error, 'reason', error)}.",
            where=f"at byte {at:,}",
            hint="Convert it to UTF-8, or use data.tokenizer=bytes, which reads anything.",
        ) from None


def as_ids(ids: Iterable[int] | np.ndarray, vocab_size: int, kind: str) -> list[int]:
    """The ids as the libraries take them.

    Raises:
      ValueError: If one is not of the vocabulary.
    """
    array = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), np.int64)
    wrong = array[(array < 0) | (array >= vocab_size)]
    if wrong.size:
        raise ValueError(f"{kind} has ids 0 to {vocab_size - 1}: got {wrong[0]}.")
    return array.tolist()


def damaged(name: str, error: Exception) -> DataError:
    """The error of a file that its library refuses."""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return DataError(
        f"This tokenizer cannot be read: {reason[:200]}.",
        where=f"at {name}",
        hint="Copy it again; a Hugging Face file ends in .json, a SentencePiece model in .model.",
    )
