"""Questions in text, answered by a model: how likely a continuation is, and what it would write itself."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Int

from griffin_eqx.data import IGNORE, Tokenizer
from griffin_eqx.model import LanguageModel
from griffin_eqx.sampling import Engine, Sampling
from griffin_eqx.sampling.prompts import bucket
from griffin_eqx.training.objective import TokenBatch, evaluate_batch, init_batch_cache

ROWS, CHUNK, PIECE = 8, 512, 32
"""Texts read side by side; tokens of each that are read at once; tokens written between two looks for stops."""


class LogLikelihood(NamedTuple):
    """How likely a text is.

    Attributes:
      nats: The logarithm of its probability: 0 at most.
      greedy: Whether each of its tokens scores above all others.
    """

    nats: float
    greedy: bool


class _Row(NamedTuple):
    """A text as tokens, `document` first, of which those from `asked_from` on are asked for."""

    tokens: Int[np.ndarray, " seq_len"]
    asked_from: int


class Scorer:
    """A model with its tokenizer, asked in text.

    A text is never cut: it is read in chunks with the cache handed on, so that every token is predicted from all
    of the text before it, whatever its length.

    Args:
      model: The model.
      tokenizer: What cuts text into its tokens.
    """

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer):
        self._model = model
        self._tokenizer = tokenizer
        self._engine: Engine | None = None

    def continuations(self, pairs: Sequence[tuple[str, str]]) -> list[LogLikelihood]:
        """Judges each continuation, given its context.

        Context and continuation are encoded as one text, and the continuation is what lies behind as many tokens as
        the context has alone; white space at the context's end counts to the continuation. Both as in lm-eval.
        """
        return self._judged([self._pair(*pair) for pair in pairs])

    def texts(self, texts: Sequence[str]) -> list[LogLikelihood]:
        """Judges whole texts, from the beginning of a document on."""
        return self._judged([self._pair("", text) for text in texts])

    def write(
        self,
        prompts: Sequence[str],
        *,
        until: Sequence[str] = (),
        max_new_tokens: int = 256,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> list[str]:
        """Continues each prompt up to the first of the words in `until`, which is left out, or the document's end.

        Args:
          prompts: The texts to continue.
          until: What ends a continuation.
          max_new_tokens: Tokens to write at most.
          sampling: How tokens are chosen; the likeliest when None.
          seed: Of the draws.
        """
        return [
            text
            for start in range(0, len(prompts), ROWS)
            for text in self._written(
                prompts[start : start + ROWS], until, max_new_tokens, sampling or Sampling(0.0), seed + start
            )
        ]

    def _pair(self, context: str, continuation: str) -> _Row:
        kept = context.rstrip()
        context, continuation = kept, context[len(kept) :] + continuation
        whole, known = self._tokenizer.encode(context + continuation), self._tokenizer.encode(context)
        tokens = np.concatenate([[self._tokenizer.document], whole]).astype(np.int32)
        return _Row(tokens, 1 + min(len(known), len(whole)))

    def _judged(self, rows: list[_Row]) -> list[LogLikelihood]:
        """Longest first, so that texts of about one length are read together."""
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i].tokens))
        found: dict[int, LogLikelihood] = {}
        for start in range(0, len(order), ROWS):
            group = order[start : start + ROWS]
            found.update(zip(group, self._together([rows[i] for i in group]), strict=True))
        return [found[i] for i in range(len(rows))]

    def _together(self, rows: list[_Row]) -> list[LogLikelihood]:
        longest = max(len(row.tokens) for row in rows)
        cache = init_batch_cache(self._model, ROWS, bucket(longest))
        nats, greedy = np.zeros(ROWS), np.ones(ROWS, bool)
        for batch in _chunks(rows, min(CHUNK, bucket(longest))):
            nll, predicted, cache = _evaluate(self._model, batch, cache)
            asked = np.asarray(batch.targets) >= 0
            nats -= np.asarray(nll, np.float64).sum(1)
            greedy &= (np.asarray(predicted) | ~asked).all(1)
        return [LogLikelihood(float(nats[i]), bool(greedy[i])) for i in range(len(rows))]

    def _written(
        self, prompts: Sequence[str], until: Sequence[str], most: int, sampling: Sampling, seed: int
    ) -> list[str]:
        self._engine = self._engine or Engine(self._model)
        tokenizer = self._tokenizer
        rows = [[tokenizer.document, *tokenizer.encode(prompt).tolist()] for prompt in prompts]
        session = self._engine.start(rows, room=most)
        tokens: list[list[int]] = [[] for _ in rows]
        ended = [False] * len(rows)
        for start in range(0, most, PIECE):
            piece = min(PIECE, most - start)
            seeds = [seed + row + len(rows) * start for row in range(len(rows))]
            written = self._engine.write(session, piece, sampling, stop=tokenizer.ends, seed=seeds)
            session = written.session
            for row, new in enumerate(written.tokens):
                if not ended[row]:
                    # The model's vocabulary may be larger than the tokenizer's.
                    tokens[row] += [token for token in new if token < tokenizer.vocab_size]
                    text = tokenizer.decode(tokens[row])
                    ended[row] = written.finished[row] or any(word in text for word in until)
            if all(ended):
                break
        return [_before(tokenizer.decode(one), until) for one in tokens]


def _chunks(rows: list[_Row], width: int) -> Iterator[TokenBatch]:
    """Rows side by side, `width` tokens at a time; each predicts the token behind it where that is asked for."""
    longest = max(len(row.tokens) for row in rows)
    for start in range(0, max(longest - 1, 1), width):
        tokens, positions = np.zeros((2, ROWS, width), np.int32)
        targets = np.full((ROWS, width), IGNORE, np.int32)
        length = np.zeros(ROWS, np.int32)
        for i, row in enumerate(rows):
            inputs = row.tokens[:-1][start : start + width]
            index = start + np.arange(len(inputs))
            length[i] = len(inputs)
            tokens[i, : len(inputs)] = inputs
            positions[i, : len(inputs)] = index
            targets[i, : len(inputs)] = np.where(index + 1 >= row.asked_from, row.tokens[index + 1], IGNORE)
        yield TokenBatch(*map(jax.device_put, (tokens, targets, positions, length)))


def _before(text: str, words: Sequence[str]) -> str:
    places = [place for word in words if word and (place := text.find(word)) >= 0]
    return text[: min(places)] if places else text


_evaluate: Any = eqx.filter_jit(evaluate_batch)
