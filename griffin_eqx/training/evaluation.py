"""Evaluation: the loss of a whole split, in nats a target and in bits a byte."""

import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from griffin_eqx.data import EvalLoader
from griffin_eqx.model import LanguageModel
from griffin_eqx.training.objective import TokenBatch, evaluate_batch, init_batch_cache


class Evaluation(NamedTuple):
    """What an evaluation found.

    Attributes:
      loss: Mean negative log-likelihood, nats a target.
      bits_per_byte: All targets' information over the bytes of text; comparable across tokenizers.
      targets: Tokens predicted.
      bytes: Those of them that are text.
    """

    loss: float
    bits_per_byte: float
    targets: int
    bytes: int


def evaluate(model: LanguageModel, loader: EvalLoader, *, carry_max_seq_len: int | None = None) -> Evaluation:
    """Reads every batch of a loader.

    Args:
      model: The model.
      loader: The batches.
      carry_max_seq_len: The longest document, where the loader's rows go on from batch to batch and the
        cache is carried; None where they do not.

    Returns:
      Loss and bits per byte; sums are float64, in a fixed order.
    """
    carry = carry_max_seq_len is not None
    cache = init_batch_cache(model, loader.batch_size, carry_max_seq_len) if carry else None
    total, targets = 0.0, 0
    for batch in loader:
        nll, cache = _evaluate_batch(model, TokenBatch(*map(jnp.asarray, batch)), cache)
        total += float(np.asarray(nll, np.float64).sum())
        targets += int((batch.targets >= 0).sum())
    return Evaluation(total / targets, total / math.log(2) / loader.num_bytes, targets, loader.num_bytes)


_evaluate_batch = eqx.filter_jit(evaluate_batch)
