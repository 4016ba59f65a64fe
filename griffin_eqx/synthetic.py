"""Tasks whose rows are drawn at random: what they share. Imports no JAX."""

import abc
import hashlib
from functools import partial
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int

from griffin_eqx.config import DataConfig
from griffin_eqx.data.packing import IGNORE, Batch
from griffin_eqx.errors import OptionError
from griffin_eqx.task import AbstractTask, EvalSet, Metric, Split

EVAL_ROWS = 512
"""Rows of an evaluation set, unless a batch has more: 512 rows with one answer each give an accuracy to within
2.2 percentage points (one standard error, at worst)."""

_BLOCK = 8  # Evaluation rows drawn with one generator: so they do not depend on the size of a batch.


class AbstractSyntheticTask(AbstractTask):
    """A task that draws its rows: a subclass says how, in `rows`, and how long one must be, in `min_seq_len`.

    Every batch has a Philox generator of its own, keyed by the task's name, the split, the seed and the step
    (evaluation: by split, row length and place). So batches are equal in every process with one version of NumPy,
    and splits never share a generator; equal rows in two splits are chance, and as rare as the task is rich.

    An evaluation set has 512 rows, a whole batch where that is more; the first has the length of training, then
    comes one for each of `data.eval_lengths`. Its batches hold as many tokens as a training batch, at most; what
    is left of the last one is empty rows. It does not depend on any seed.

    Attributes:
      options: The task's options.
      data: Sizes of a batch.
    """

    metric: ClassVar[Metric] = "accuracy"

    def __init__(self, options: Any, data: DataConfig):
        self.options = options
        self.data = data
        for field, lengths in (("seq_len", (data.seq_len,)), ("eval_lengths", data.eval_lengths)):
            for length in lengths:
                if length < self.min_seq_len:
                    raise OptionError(
                        field,
                        f"{self.name} with these options needs rows of at least {self.min_seq_len} tokens, "
                        f"got data.{field} = {length}",
                    )

    @classmethod
    def init(cls, options: Any, data: DataConfig) -> "AbstractSyntheticTask":
        """Builds the task.

        Raises:
          OptionError: If rows are too short for the options.
        """
        return cls(options, data)

    @property
    @abc.abstractmethod
    def min_seq_len(self) -> int:
        """The shortest row, in tokens, that the options fit into."""

    @abc.abstractmethod
    def rows(self, rng: np.random.Generator, num_rows: int, seq_len: int) -> Batch:
        """Draws rows.

        Args:
          rng: The only source of chance.
          num_rows: How many.
          seq_len: Tokens a row, `min_seq_len` or more.
        """

    def train_batch(self, seed: int, step: int) -> Batch:
        """Gives the batch of a step.

        Raises:
          IndexError: If `step` is negative.
        """
        if step < 0:
            raise IndexError(f"Steps count from 0: got step={step}.")
        rng = _generator(self.name, "train", seed, step)
        return self.rows(rng, self.data.batch_size, self.data.seq_len)

    def eval_sets(self, split: Split, max_tokens: int | None = None) -> tuple[EvalSet, ...]:
        """Gives one set for each length, that of training first."""
        lengths = dict.fromkeys((self.data.seq_len, *self.data.eval_lengths))
        return tuple(self._eval_set(split, length, max_tokens) for length in lengths)

    def _eval_set(self, split: Split, seq_len: int, max_tokens: int | None) -> EvalSet:
        rows = max(1, min(self.data.batch_size, self.data.batch_size * self.data.seq_len // seq_len))
        wanted = EVAL_ROWS if max_tokens is None else min(EVAL_ROWS, max_tokens // seq_len)
        total = max(rows, wanted)
        batch = partial(self._eval_batch, split, seq_len, rows, total)
        return EvalSet(f"length {seq_len}", seq_len, -(-total // rows), batch)

    def _eval_batch(self, split: Split, seq_len: int, rows: int, total: int, index: int) -> Batch:
        start, stop = index * rows, min((index + 1) * rows, total)
        first = start // _BLOCK
        blocks = [
            self.rows(_generator(self.name, split, seq_len, block), _BLOCK, seq_len)
            for block in range(first, -(-stop // _BLOCK))
        ]
        drawn = Batch(
            *(
                np.concatenate(parts)[start - first * _BLOCK :][: stop - start]
                for parts in zip(*blocks, strict=True)
            )
        )
        empty = rows - (stop - start)
        fill = Batch(tokens=0, targets=IGNORE, positions=0, length=0)  # pyright: ignore[reportArgumentType]
        return Batch(
            *(
                np.pad(part, [(0, empty), *[(0, 0)] * (part.ndim - 1)], constant_values=value)
                for part, value in zip(drawn, fill, strict=True)
            )
        )


def one_document(
    tokens: Int[np.ndarray, "batch seq_len"], targets: Int[np.ndarray, "batch seq_len"]
) -> Batch:
    """Makes a batch of full rows with one document each, counted from 0."""
    num_rows, seq_len = tokens.shape
    return Batch(
        tokens=tokens.astype(np.int32, copy=False),
        targets=targets.astype(np.int32, copy=False),
        positions=np.tile(np.arange(seq_len, dtype=np.int32), (num_rows, 1)),
        length=np.full(num_rows, seq_len, np.int32),
    )


def _generator(*key: str | int) -> np.random.Generator:
    """The generator of a key; different keys have unrelated streams (Philox is counter-based, its key 128 bits)."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16])))
