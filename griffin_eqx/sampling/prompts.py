"""Prompts as they come, and the one form that the engine works with: a row of ids each, and buckets of lengths."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

SMALLEST_BUCKET = 16

_SMALL_CHUNK = 512
"""Up to here filler costs less than one more program to compile."""

Rows = tuple[np.ndarray, ...]
"""Token ids, one array `[tokens]` of int32 a row."""


def bucket(size: int) -> int:
    """The next power of two, so that new lengths seldom compile again."""
    return max(SMALLEST_BUCKET, 1 << (size - 1).bit_length())


def chunks(tokens: int, largest: int) -> Iterator[tuple[int, int]]:
    """How a prompt is read: `(start, places)` of each chunk, of which there are few and few sizes.

    A chunk has as many places as are allowed, the last one the next power of two; but where that is large and would be
    less than three quarters full, half of it is read first.

    Args:
      tokens: Of the longest row.
      largest: Places of a chunk at most.

    >>> list(chunks(1700, 1024))
    [(0, 1024), (1024, 512), (1536, 256)]
    """
    start = 0
    while start < tokens:
        left = tokens - start
        places = min(bucket(left), largest)
        if places > _SMALL_CHUNK and 4 * left < 3 * places:
            places //= 2
        yield start, places
        start += places


def as_rows(prompts: Any, mask: Any = None, *, vocab_size: int, empty: bool = False) -> Rows:
    """Prompts of any lengths, checked.

    Args:
      prompts: One sequence of ids a prompt; or an array `[batch, seq_len]`.
      mask: With an array: True at its tokens. They are contiguous in a row, with padding on either side.
      vocab_size: Ids lie below it.
      empty: Whether a row may have no token.

    Raises:
      ValueError: If a row is empty, holds an id outside of the vocabulary, or a mask does not fit.
    """
    if mask is not None:
        prompts, mask = np.asarray(prompts), np.asarray(mask, bool)
        if prompts.shape != mask.shape or prompts.ndim != 2:
            raise ValueError(f"A mask is for an array of its shape: got {mask.shape} for {prompts.shape}.")
        for i, row in enumerate(mask):
            if np.count_nonzero(np.diff(row.astype(np.int8), prepend=0) == 1) > 1:
                raise ValueError(f"prompt {i} has padding between its tokens; its mask must be one piece.")
        prompts = [row[own] for row, own in zip(prompts, mask, strict=True)]
    rows = tuple(np.asarray(prompt, np.int64).reshape(-1) for prompt in prompts)
    for i, row in enumerate(rows):
        if not row.size and not empty:
            raise ValueError(f"prompt {i} is empty: begin it with the tokenizer's `document`.")
        if row.size and (row.min() < 0 or row.max() >= vocab_size):
            raise ValueError(
                f"prompt {i} holds ids outside of 0 to {vocab_size - 1}: is it another tokenizer's?"
            )
    return tuple(row.astype(np.int32) for row in rows)


def as_seeds(seed: int | Sequence[int], batch: int) -> np.ndarray:
    """One seed a row: counted up from one, or as given.

    Raises:
      ValueError: If there are not as many as rows.
    """
    seeds = [seed + i for i in range(batch)] if isinstance(seed, int | np.integer) else list(seed)
    if len(seeds) != batch:
        raise ValueError(f"{len(seeds)} seeds for {batch} rows: give one a row, or one that is counted up.")
    return np.array([int(s) % 2**32 for s in seeds], np.uint32)


def as_stops(stop: int | Sequence[int] | None) -> np.ndarray:
    """The tokens that end a text; filled up to four, or a power of two, with -1, which no token is."""
    stops = [] if stop is None else [stop] if isinstance(stop, int | np.integer) else list(stop)
    size = max(4, 1 << max(0, len(stops) - 1).bit_length())
    return np.array([*stops, *[-1] * (size - len(stops))], np.int32)
