"""Documents as one stream of tokens, and batches cut out of it with their positions.

The layout contract of the whole framework: `positions[t]` is how many tokens of its own document stand before
token t. A block looks back over at most that many tokens, so these integers alone keep documents apart.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, Integer, UInt

from griffin_eqx.data.corpus import Document
from griffin_eqx.data.errors import DataError
from griffin_eqx.data.tokenizer import Tokenizer

IGNORE = -1  # the target of a token that has no next token to predict


class Batch(NamedTuple):
    """Rows of tokens, ready for the model. In each row tokens come first, padding after them.

    At padding, tokens and positions are 0 and targets are IGNORE.

    Attributes:
      tokens: What the model reads.
      targets: What it should predict: the next token of the text, or IGNORE.
      positions: How many tokens of its own document stand before each token, among those the model can know.
      length: How many tokens each row has.
    """

    tokens: Int32[np.ndarray, "batch seq_len"]
    targets: Int32[np.ndarray, "batch seq_len"]
    positions: Int32[np.ndarray, "batch seq_len"]
    length: Int32[np.ndarray, " batch"]


class Window(NamedTuple):
    """One row of a batch, without padding; the fields are those of `Batch`."""

    tokens: Int32[np.ndarray, " seq_len"]
    targets: Int32[np.ndarray, " seq_len"]
    positions: Int32[np.ndarray, " seq_len"]


@dataclasses.dataclass(frozen=True, eq=False)
class TokenStream:
    """Documents one after the other: each its DOCUMENT token, then its text.

    Attributes:
      tokens: The ids, in the tokenizer's dtype (uint16 or uint32).
      document_starts: The index of every DOCUMENT token, ascending; the first is 0.
    """

    tokens: UInt[np.ndarray, " num_tokens"]
    document_starts: Int64[np.ndarray, " num_documents"]

    def __post_init__(self):
        starts = self.document_starts
        assert starts.size == 0 or (starts[0] == 0 and (np.diff(starts) > 0).all())
        assert bool(starts.size) == bool(self.tokens.size)

    def __len__(self) -> int:
        return len(self.tokens)

    def positions(
        self, index: Integer[np.ndarray, "*shape"], known_from: int | Integer[np.ndarray, "*#shape"] = 0
    ) -> Int32[np.ndarray, "*shape"]:
        """Counts, for each index into `tokens`, the tokens of its document before it.

        Args:
          index: Indices into `tokens`, each within it.
          known_from: Tokens before this index are unknown to the model and are not counted.
        """
        document = np.searchsorted(self.document_starts, index, side="right") - 1
        return (index - np.maximum(self.document_starts[document], known_from)).astype(np.int32)


def encode_documents(documents: Iterable[Document], tokenizer: Tokenizer) -> TokenStream:
    """Encodes documents, in their order, into one stream: `[DOCUMENT] + text` each.

    Raises:
      DataError: If a document cannot be encoded, or its tokens stand for other bytes than it has: bits per byte
        would be those of another text.
    """
    pieces = [_encoded(document, tokenizer) for document in documents]
    ends = np.cumsum([len(piece) + 1 for piece in pieces], dtype=np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), ends])[: len(pieces)]
    tokens = np.empty(ends[-1] if pieces else 0, tokenizer.dtype)
    tokens[starts] = tokenizer.document
    for start, piece in zip(starts, pieces, strict=True):
        tokens[start + 1 : start + 1 + len(piece)] = piece
    return TokenStream(tokens, starts)


def _encoded(document: Document, tokenizer: Tokenizer) -> UInt[np.ndarray, " seq_len"]:
    try:
        ids = tokenizer.encode(document.text)
    except DataError as error:
        raise DataError(error.what, where=f"{error.where} of {document.name}", hint=error.hint) from None
    known = tokenizer.num_bytes(np.append(ids, np.array(tokenizer.document, ids.dtype)))
    # One byte may differ: some tokenizers put a space before a text only where it begins with none.
    if abs(known - len(document.text)) > 1:
        raise DataError(
            f"The tokenizer {tokenizer.name} does not keep this text: of its {len(document.text):,} bytes the "
            f"tokens stand for {known:,}.",
            where=f"in {document.name}",
            hint="Use a tokenizer that knows every byte and changes none (byte-level, or byte fallback without "
            "normalisation), or data.tokenizer=bytes.",
        )
    return ids


def cut(
    stream: TokenStream,
    start: Int[np.ndarray, " batch"],
    length: Int[np.ndarray, " batch"],
    seq_len: int,
    known_from: Int[np.ndarray, " batch"],
) -> Batch:
    """Cuts one row out of the stream for each start.

    The stream is a ring: after its last token comes its first, which is a DOCUMENT token, so that the last
    document ends as every other does. Indices count on around the ring.

    Args:
      stream: Not empty.
      start: Where each row begins, 0 or more.
      length: How many tokens each row has, 0 to `seq_len`; padding follows them.
      seq_len: The length of the rows, padding included.
      known_from: Where the tokens begin that the model knows, at most `start`: the document that is open
        there is counted from there, later ones from their own beginning.
    """
    column = np.arange(seq_len)
    index = start[:, None] + column
    ring = index % len(stream)
    lap = index - ring
    positions = stream.positions(ring, np.maximum(known_from[:, None] - lap, 0))
    real = column < length[:, None]
    return Batch(
        tokens=_masked(stream.tokens[ring], real, 0),
        targets=_masked(stream.tokens[(ring + 1) % len(stream)], real, IGNORE),
        positions=_masked(positions, real, 0),
        length=length.astype(np.int32),
    )


def _masked(
    values: Integer[np.ndarray, "batch seq_len"], real: Bool[np.ndarray, "batch seq_len"], padding: int
) -> Int32[np.ndarray, "batch seq_len"]:
    return np.where(real, values.astype(np.int32), np.int32(padding))


def window(stream: TokenStream, start: int, length: int, *, from_zero: bool) -> Window:
    """Cuts `length` tokens out of the stream, with their targets and positions.

    The target of a document's last token is the next document's DOCUMENT; the stream's last token has none.

    Args:
      stream: Where to cut.
      start: The index of the first token.
      length: How many tokens.
      from_zero: Whether nothing before `start` is known (no cache is carried). Then the tokens of a document
        that began earlier are counted from `start`; otherwise from that document's beginning.

    Raises:
      ValueError: If the window is not within the stream.
    """
    if min(start, length) < 0 or start + length > len(stream):
        raise ValueError(
            f"window needs 0 <= start <= start + length <= {len(stream)}, the tokens of the stream: "
            f"got start={start}, length={length}."
        )
    known_from = start if from_zero else 0
    row = cut(stream, np.array([start]), np.array([length]), length, np.array([known_from]))
    if length and start + length == len(stream):
        row.targets[0, -1] = IGNORE
    return Window(row.tokens[0], row.targets[0], row.positions[0])


def pack(rows: Sequence[Integer[np.ndarray, " _"]], seq_len: int) -> Batch:
    """Packs short documents into rows of `seq_len` tokens: each goes, in order, into the first row with room.

    Positions restart at each document. A document's last token has no target, and nor has padding. An empty
    document takes no place; no documents give a batch of no rows.

    Args:
      rows: The ids of each document.
      seq_len: The length of the rows.

    Raises:
      ValueError: If a document is longer than `seq_len`.

    >>> batch = pack([np.array([1, 2, 3]), np.array([4, 5]), np.array([6])], seq_len=4)
    >>> batch.tokens.tolist(), batch.positions.tolist(), batch.length.tolist()
    ([[1, 2, 3, 6], [4, 5, 0, 0]], [[0, 1, 2, 0], [0, 1, 0, 0]], [4, 2])
    """
    documents = [document for document in rows if len(document)]
    longest = max(map(len, documents), default=0)
    if longest > seq_len:
        raise ValueError(f"pack needs documents of at most seq_len={seq_len} tokens: got one of {longest}.")
    used: list[int] = []
    places: list[tuple[int, int]] = []
    for document in documents:
        fits = (row for row, taken in enumerate(used) if taken + len(document) <= seq_len)
        row = next(fits, len(used))
        if row == len(used):
            used.append(0)
        places.append((row, used[row]))
        used[row] += len(document)
    shape = (len(used), seq_len)
    tokens, targets, positions = (np.full(shape, fill, np.int32) for fill in (0, IGNORE, 0))
    for (row, start), document in zip(places, documents, strict=True):
        end = start + len(document)
        tokens[row, start:end] = document
        targets[row, start : end - 1] = document[1:]
        positions[row, start:end] = np.arange(len(document))
    return Batch(tokens, targets, positions, np.array(used, np.int32))
