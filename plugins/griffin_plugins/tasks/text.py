"""Language modelling: the next token of a corpus."""

import dataclasses
import functools
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Integer

from griffin_eqx.config import DataConfig
from griffin_eqx.data import (
    Batch,
    Corpus,
    Tokenizer,
    TokenStream,
    TrainLoader,
    encode_documents,
    load_corpus,
    open_tokenizer,
)
from griffin_eqx.task import AbstractTask, EvalSet, Metric, Split
from griffin_eqx.text_sets import text_sets


@dataclasses.dataclass(frozen=True)
class TextOptions:
    """The text task has no options: `data.corpus` and what follows it say which text."""


class TextTask(AbstractTask):
    """Every token of `data.corpus` from those before it, bytes or those of `data.tokenizer`.

    The sets of a split are the same text, cut into rows of `data.seq_len` and of each of `data.eval_lengths`, so
    that losses by position compare: a longer row has more of it before each token. With `data.carry` rows go on
    from batch to batch.
    """

    name = "text"
    summary = "next token of a corpus (data.corpus)"
    source = "De et al. 2024, arXiv:2402.19427, section 3"
    Options = TextOptions
    metric: ClassVar[Metric] = "bits_per_byte"

    def __init__(self, data: DataConfig, corpus: Corpus, tokenizer: Tokenizer):
        self._data = data
        self._corpus = corpus
        self._tokenizer = tokenizer
        self._stream = functools.cache(self._encoded)
        self._loader = functools.lru_cache(maxsize=8)(self._loaded)

    @classmethod
    def init(cls, options: TextOptions, data: DataConfig) -> "TextTask":
        """Opens the tokenizer and loads the corpus.

        Raises:
          DataError: If the tokenizer cannot be read, or the text is missing or too short.
        """
        tokenizer = cls.tokenizer(options, data)
        return cls(data, load_corpus(data.corpus), tokenizer)

    @classmethod
    def tokenizer(cls, options: TextOptions, data: DataConfig) -> Tokenizer:
        """`data.tokenizer`.

        Raises:
          DataError: If its file cannot be read.
        """
        return open_tokenizer(data.tokenizer)

    @property
    def vocab_size(self) -> int:
        """The tokenizer's."""
        return self._tokenizer.vocab_size

    def train_batch(self, seed: int, step: int) -> Batch:
        """Gives the windows of a step (`TrainLoader`)."""
        return self._loader(seed).batch(step)

    def continues(self, step: int) -> Bool[np.ndarray, " batch"] | None:
        """With `data.carry`, every row except where a pass begins."""
        return self._loader(0).continues(step) if self._data.carry else None

    def epoch(self, step: int) -> float:
        """Passes over the training text before a step."""
        return step * self._data.batch_size / self._loader(0).windows_per_epoch

    def num_bytes(self, targets: Integer[np.ndarray, "*shape"]) -> int:
        """The bytes of text that the targets stand for."""
        return self._tokenizer.num_bytes(targets)

    def eval_sets(self, split: Split, max_tokens: int | None = None) -> tuple[EvalSet, ...]:
        """The split in rows of `data.seq_len`, then of each of `data.eval_lengths`; all of it when None.

        Raises:
          DataError: If the text is shorter than such a row.
        """
        where = f"in the {split} split, of which train.eval_tokens are read"
        return text_sets(self._stream(split), self._data, where=where, max_tokens=max_tokens)

    @property
    def digest(self) -> str:
        """The corpus's."""
        return self._corpus.digest

    def facts(self) -> dict[str, Any]:
        """Corpus, its source, and the tokenizer."""
        return {
            "corpus": self._corpus.name,
            "source": self._corpus.source,
            "tokenizer": {"name": self._tokenizer.name, "digest": self._tokenizer.digest},
        }

    def _encoded(self, split: str) -> TokenStream:
        return encode_documents(self._corpus.splits[split], self._tokenizer)

    def _loaded(self, seed: int) -> TrainLoader:
        data = self._data
        return TrainLoader(
            self._stream("train"),
            seed=seed,
            seq_len=data.seq_len,
            batch_size=data.batch_size,
            carry=data.carry,
        )
