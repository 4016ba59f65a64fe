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

START = 5
"""Largest position of a row's first token."""

seeds = st.integers(0, 2**32 - 1)
"""Seeds of the random arrays of a case."""

HUGE = 1e30
"""A scale whose squares overflow."""

paddings = st.sampled_from((0.0, 1.0, 1e3, HUGE))
"""Scales of the values at padding: any finite value is allowed there."""


@dataclasses.dataclass(frozen=True)
class Row:
    """Documents one after the other.

    Attributes:
      documents: The number of tokens of each, at least 1.
      start: Position of the first token: tokens before it are unknown, and count as absent.
    """

    documents: tuple
    start: int = 0

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return sum(self.documents)

    @property
    def positions(self) -> Any:
        """Position of each token in its document, int32."""
        positions = np.concatenate([np.arange(n, dtype=np.int32) for n in (0, *self.documents)])
        positions[: self.documents[0]] += self.start
        return positions

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


# Each draw takes as many choices whatever the others were: so a case shrinks in all its parts at once.


@st.composite
def rows(draw: Any, *, most: int = ROW, documents: int = 4, start: int = 0) -> Row:
    """Rows of 1 to `most` tokens with document borders anywhere, beginning at position `start` at most."""
    length = st.integers(1, 6) | st.integers(1, most)
    lengths = draw(st.lists(length, min_size=1, max_size=documents))
    ends = [min(end, most) for end in itertools.accumulate(lengths)]
    lengths = tuple(end - begin for begin, end in itertools.pairwise([0, *ends]) if end > begin)
    return Row(lengths, draw(st.integers(0, start)))


@st.composite
def splits(draw: Any, tokens: int) -> tuple:
    """Every way to cut a row into chunks: single tokens, padded chunks, chunks of padding alone."""
    by_token = draw(st.booleans())
    cuts = draw(st.lists(st.integers(0, ROW), max_size=4))
    roomy = draw(st.lists(st.booleans(), min_size=5, max_size=5))
    inner = range(1, tokens) if by_token else sorted(min(cut, tokens) for cut in cuts)
    sizes = [end - start for start, end in itertools.pairwise([0, *inner, tokens])]
    empty, place = draw(st.booleans()), draw(st.integers(0, 4))
    if empty:
        sizes.insert(min(place, len(sizes)), 0)
    fitting = [[bucket for bucket in BUCKETS if size <= bucket] for size in sizes]
    return tuple(
        Chunk(size, buckets[min(wide, len(buckets) - 1)])
        for size, buckets, wide in zip(sizes, fitting, itertools.cycle(roomy), strict=False)
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


@dataclasses.dataclass(frozen=True)
class MeshCase:
    """A batch over a mesh.

    Attributes:
      mesh: Devices along data, sequence and model.
      carried: Rows go on from a cache, on a length that leaves shards of the sequence uneven.
      seed: Of parameters, inputs, borders of documents and lengths.
    """

    mesh: tuple
    carried: bool
    seed: int


@st.composite
def whole_rows(draw: Any, **limits: int) -> Case:
    """A row in one chunk, with a token picked."""
    row = draw(rows(**limits))
    return Case(row, (), draw(st.integers(0, row.tokens - 1)), draw(paddings), draw(seeds))


@st.composite
def cut_rows(draw: Any, **limits: int) -> Case:
    """A row cut into chunks, with a document picked."""
    row = draw(rows(start=START, **limits))
    pick = draw(st.integers(0, len(row.documents) - 1))
    return Case(row, draw(splits(row.tokens)), pick, draw(paddings), draw(seeds))
