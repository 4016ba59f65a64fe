"""A task of recall: at a mark, say the token that stood first in the row, and say it again."""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from griffin_eqx.config import DataConfig
from griffin_eqx.data import IGNORE, Batch
from griffin_eqx.errors import OptionError
from griffin_eqx.task import AbstractTask, EvalSet, Metric, Split


@dataclasses.dataclass(frozen=True)
class FirstTokenOptions:
    vocab: int = 6

    def __post_init__(self):
        if self.vocab < 3:
            raise OptionError("vocab", f"must be at least 3, got {self.vocab}")


class FirstTokenTask(AbstractTask):
    name = "first_token"
    aliases = ("F",)
    summary = "say the first token of the row, twice"
    source = "made up"
    Options = FirstTokenOptions
    metric: ClassVar[Metric] = "accuracy"

    def __init__(self, vocab: int, data: DataConfig):
        self.vocab, self.data = vocab, data

    @classmethod
    def init(cls, options: Any, data: DataConfig) -> "FirstTokenTask":
        if data.seq_len < 4:
            raise OptionError("vocab", f"needs rows of 4 tokens or more, got data.seq_len={data.seq_len}")
        return cls(options.vocab, data)

    @property
    def vocab_size(self) -> int:
        return self.vocab

    def train_batch(self, seed: int, step: int) -> Batch:
        return self._rows(self.data.seq_len, 0, seed, step)

    def eval_sets(self, split: Split, max_tokens: int | None = None) -> tuple[EvalSet, ...]:
        def one(seq_len):
            batches = max(1, (max_tokens or 1000) // (self.data.batch_size * seq_len))
            which = ("validation", "test").index(split) + 1
            return EvalSet(f"length {seq_len}", seq_len, batches, lambda i: self._rows(seq_len, which, 0, i))

        return tuple(one(n) for n in (self.data.seq_len, *self.data.eval_lengths))

    def _rows(self, seq_len: int, *key: int) -> Batch:
        shape = (self.data.batch_size, seq_len)
        tokens = np.random.default_rng(key).integers(1, self.vocab, shape, np.int32)
        tokens[:, -2] = 0  # the mark
        tokens[:, -1] = tokens[:, 0]
        targets = np.full(shape, IGNORE, np.int32)
        targets[:, -2:] = tokens[:, :1]
        positions = np.broadcast_to(np.arange(seq_len, dtype=np.int32), shape).copy()
        return Batch(tokens, targets, positions, np.full(shape[0], seq_len, np.int32))
