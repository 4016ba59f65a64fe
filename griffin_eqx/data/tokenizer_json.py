"""Hugging Face's `tokenizer.json`. Extra `tokenizers`."""

import functools
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt

from griffin_eqx.data import subword
from griffin_eqx.data.errors import DataError
from griffin_eqx.data.tokenizer import Tokenizer, TokenizerFile

BEGINS = ("<bos>", "<s>", "[BOS]", "<|begin_of_text|>", "<|startoftext|>", "<|endoftext|>")
ENDS = ("<eos>", "</s>", "[EOS]", "<|end_of_text|>", "<|endoftext|>")
"""What special tokens at a document's borders are called, in the order in which they are looked for."""

_BYTE_PIECE_LENGTH = len("<0x00>")


class HuggingFaceTokenizer(Tokenizer):
    """A `tokenizer.json`; a document begins with the first special token of `BEGINS`, or else of `ENDS`.

    Args:
      content: The file's bytes.
      name: What configs call it.

    Raises:
      DataError: If the file is damaged or has no such token, or the library is missing.
    """

    def __init__(self, content: bytes, *, name: str):
        try:
            import tokenizers
        except ImportError:
            raise DataError(
                "To read this tokenizer takes the package tokenizers, which is not installed.",
                where=f"at {name}",
                hint="Install it: pip install 'griffin_eqx[tokenizers]'",
            ) from None
        self._name = name
        self._content = content
        try:
            # The file first: what it says of truncation, padding and specials is of other uses than ours.
            self._model = tokenizers.Tokenizer.from_buffer(content)
            self._tree: dict[str, Any] = json.loads(content)
            self._vocab_size = 1 + max(self._model.get_vocab(with_added_tokens=True).values(), default=-1)
        except Exception as error:
            raise subword.damaged(name, error) from None
        self._model.no_truncation()
        self._model.no_padding()
        self._model.encode_special_tokens = True  # "<bos>" in a text is five letters
        found = {
            token.content: i for i, token in self._model.get_added_tokens_decoder().items() if token.special
        }
        self._special_ids = frozenset(found.values())
        borders = [found[token] for token in (*BEGINS, *ENDS) if token in found]
        if not borders:
            raise DataError(
                "This tokenizer has no token that begins a document.",
                where=f"at {name}",
                hint=f"Give it one of these special tokens: {', '.join(dict.fromkeys((*BEGINS, *ENDS)))}.",
            )
        self._document = borders[0]
        self._ends = tuple(dict.fromkeys([borders[0], *(found[token] for token in ENDS if token in found)]))

    @property
    def name(self) -> str:
        """The name it was opened by."""
        return self._name

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the file."""
        return subword.digest("tokenizer.json", self._content)

    @property
    def vocab_size(self) -> int:
        """The highest id and one."""
        return self._vocab_size

    @property
    def document(self) -> int:
        """The special token that begins a document."""
        return self._document

    @property
    def ends(self) -> tuple[int, ...]:
        """That one, and those that end a document."""
        return self._ends

    @property
    def file(self) -> TokenizerFile:
        """The `tokenizer.json`."""
        return TokenizerFile("tokenizer.json", self._content)

    @property
    def byte_counts(self) -> Int64[np.ndarray, " vocab_size"]:
        """From how the file's decoder spells tokens: byte-level letters, byte pieces, spaces, or plain text."""
        return self._byte_counts

    @functools.cached_property
    def _byte_counts(self) -> Int64[np.ndarray, " vocab_size"]:
        parts = list(_parts(self._tree.get("decoder")))
        kinds = {part.get("type") for part in parts}
        spaces = "Metaspace" in kinds or any(
            part.get("type") == "Replace" and part.get("pattern") == {"String": subword.SPACE}
            for part in parts
        )
        added = set(self._model.get_added_tokens_decoder())

        def count(token: str, i: int) -> int:
            if i in self._special_ids:
                return 0
            if i in added:
                return len(token.encode())
            if "ByteLevel" in kinds:  # one letter a byte
                return len(token)
            if "ByteFallback" in kinds and _is_byte(token):
                return 1
            return len((token.replace(subword.SPACE, " ") if spaces else token).encode())

        counts = np.zeros(self._vocab_size, np.int64)
        for token, i in self._model.get_vocab(with_added_tokens=True).items():
            counts[i] = count(token, i)
        # A space that the tokenizer puts before every text.
        counts[self._document] = min(0, 1 - int(counts[self.encode("a")].sum()))
        return counts

    def encode(self, text: str | bytes) -> UInt[np.ndarray, " seq_len"]:
        """Gives the ids of `text`; what looks like a special token in it is text.

        Raises:
          DataError: If it is no UTF-8.
        """
        # Fast: without the places of tokens in the text.
        (found,) = self._model.encode_batch_fast([subword.as_text(text)], add_special_tokens=False)
        return np.array(found.ids, self.dtype)

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """Gives the text of `ids`; special tokens are dropped, invalid UTF-8 becomes U+FFFD.

        Raises:
          ValueError: If an id is not of this vocabulary.
        """
        known = subword.as_ids(ids, self._vocab_size, "HuggingFaceTokenizer")
        return self._model.decode(known, skip_special_tokens=True)


def _is_byte(token: str) -> bool:
    return len(token) == _BYTE_PIECE_LENGTH and token.startswith("<0x") and token.endswith(">")


def _parts(decoder: Any) -> Iterator[dict[str, Any]]:
    """A decoder of `tokenizer.json`, or the decoders that it is a sequence of."""
    if not isinstance(decoder, dict):
        return
    yield decoder
    for part in decoder.get("decoders") or ():
        yield from _parts(part)
