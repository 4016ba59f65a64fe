"""Small models of every kind of block, one of them a stranger's, and an oracle that knows no cache."""

import functools
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from griffin_eqx import registry
from griffin_eqx.config import ModelConfig
from griffin_eqx.model import LanguageModel

STRANGER = Path(__file__).parents[1] / "distributions/good/acme_blocks/token_shift.py"
VOCABULARY = 23
LONGEST = 64
"""Of the texts that the oracle scores: one shape, so that it compiles once a model."""

EVERY_KIND = "rg_lru cg_lru local_mqa[window_size=5,mlp=none] global_mqa token_shift"
REPEATED = "(rg_lru local_mqa[window_size=5])@4"


@functools.cache
def small(pattern: str, vocab_size: int = VOCABULARY, conv_width: int = 4) -> LanguageModel:
    """A model with weights far from ties, so that a small error changes what it writes."""
    before = registry.default._added
    try:
        if "token_shift" in pattern:
            registry.add_file(STRANGER)
        config = ModelConfig(
            pattern=pattern,
            width=16,
            lru_width=16,
            mlp_width=16,
            vocab_size=vocab_size,
            blocks={
                "rg_lru": {"gate_blocks": 2, "conv_width": conv_width},
                "cg_lru": {"gate_blocks": 2},
                "local_mqa": {"head_dim": 8},
                "global_mqa": {"head_dim": 8},
            },
        )
        model = eqx.filter_jit(lambda: LanguageModel.init(config, key=jax.random.key(1)))()
    finally:
        registry.default._added = before
    return jax.tree.map(lambda z: 3 * z if eqx.is_array(z) and z.ndim > 1 else z, model)


class Oracle:
    """Scores by running the whole model over the whole text: no cache, no batch, no chunk."""

    def __init__(self, model: LanguageModel):
        self._score = eqx.filter_jit(lambda tokens: model(tokens)[0])

    def log_probabilities(self, text) -> np.ndarray:
        """`[tokens, vocab_size]`: of what follows each token, in nats."""
        # The future changes nothing, so filler behind the text keeps the shape.
        filled = np.zeros(LONGEST, np.int32)
        filled[: len(text)] = text
        logits = np.asarray(self._score(jnp.asarray(filled)), np.float64)[: len(text)]
        logits -= logits.max(-1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    def greedy(self, prompt, new: int, stop=()) -> list[int]:
        """The likeliest continuation, token by token."""
        text = list(prompt)
        for _ in range(new):
            token = int(self.log_probabilities(text)[-1].argmax())
            if token in stop:
                break
            text.append(token)
        return text[len(prompt) :]

    def score(self, prompt, new) -> np.ndarray:
        """The log-probability of each new token."""
        text = [*prompt, *new]
        scores = self.log_probabilities(text)[len(prompt) - 1 : -1]
        return scores[np.arange(len(new)), list(new)]


@functools.cache
def oracle(pattern: str, vocab_size: int = VOCABULARY) -> Oracle:
    """The oracle of `small`."""
    return Oracle(small(pattern, vocab_size))
