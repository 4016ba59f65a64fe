"""What the laws are tried on: rows of documents, ways to cut them, paddings and seeds.

Cases are small tuples of integers, which Hypothesis shrinks well; arrays are built from their seed. Shapes
come from few buckets, so that little is compiled, and `length` gives every number of tokens within a bucket.
"""

import dataclasses
import itertools
from typing import Any

import numpy as np
from hypothesis import strategies as st

BUCKETS = (1, 8, 17)
"""Chunk lengths, padding included: one token, a power of two, and one above a kernel's block of 16."""

ROW = BUCKETS[-1]
"""The longest row."""

seeds = st.integers(0, 2**32 - 1)
"""Seeds of the random arrays of a case."""

paddings = st.sampled_from((0.0, 1.0, 1e3, 1e30))
"""Scales of the values at padding: any finite value is allowed there, and squares of 1e30 overflow."""


@dataclasses.dataclass(frozen=True)
class Row:
    """Documents one after the other.

    Attributes:
      documents: The number of tokens of each, at least 1.
    """

    documents: tuple

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return sum(self.documents)

    @property
    def positions(self) -> Any:
        """Position of each token in its document, int32."""
        return np.concatenate([np.arange(n, dtype=np.int32) for n in (0, *self.documents)])

    @property
    def spans(self) -> list[slice]:
        """Where each document lies."""
        ends = np.cumsum(self.documents).tolist()
        return [slice(end - n, end) for end, n in zip(ends, self.documents, strict=True)]


@dataclasses.dataclass(frozen=True)
class Chunk:
    """The next `tokens` tokens of a row, in a chunk of `bucket` with padding behind them."""

    tokens: int
    bucket: int


@st.composite
def rows(draw: Any, *, least: int = 1, most: int = ROW, documents: int = 4) -> Row:
    """Rows of `least` to `most` tokens with document borders anywhere."""
    tokens = draw(st.integers(least, most))
    inner = st.sets(st.integers(1, max(1, tokens - 1)), max_size=min(documents, tokens) - 1)
    borders = sorted(draw(inner)) if tokens > 1 else []
    ends = [0, *borders, tokens]
    return Row(tuple(end - start for start, end in itertools.pairwise(ends)))


@st.composite
def splits(draw: Any, tokens: int) -> tuple:
    """Every way to cut a row into chunks: single tokens, padded chunks, chunks of padding alone."""
    cuts = st.lists(st.integers(0, tokens), max_size=4).map(sorted) | st.just(list(range(1, tokens)))
    ends = [0, *draw(cuts), tokens]
    sizes = [end - start for start, end in itertools.pairwise(ends)]
    fitting = [[bucket for bucket in BUCKETS if size <= bucket][:2] for size in sizes]
    return tuple(
        Chunk(size, draw(st.sampled_from(buckets))) for size, buckets in zip(sizes, fitting, strict=True)
    )


@dataclasses.dataclass(frozen=True)
class Case:
    """A row, a way to cut it, and what its random arrays are made from.

    Attributes:
      row: The documents.
      chunks: How the row is cut.
      pick: Which token or document the law is about, when it is about one.
      padding: Scale of the values at padding.
      seed: Of parameters and inputs.
    """

    row: Row
    chunks: tuple = ()
    pick: int = 0
    padding: float = 0.0
    seed: int = 0

    @property
    def rng(self) -> np.random.Generator:
        """A fresh generator of this case."""
        return np.random.default_rng(self.seed)


@st.composite
def whole_rows(draw: Any, **limits: int) -> Case:
    """A row in one chunk, with a token picked."""
    row = draw(rows(**limits))
    return Case(row, (), draw(st.integers(0, row.tokens - 1)), draw(paddings), draw(seeds))


@st.composite
def cut_rows(draw: Any, **limits: int) -> Case:
    """A row cut into chunks, with a document picked."""
    row = draw(rows(**limits))
    pick = draw(st.integers(0, len(row.documents) - 1))
    return Case(row, draw(splits(row.tokens)), pick, draw(paddings), draw(seeds))
