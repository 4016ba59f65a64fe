"""Evaluation: what a model makes of a whole set, in the measures of `SetOutcome`."""

import math
import time
from collections.abc import Callable, Iterator

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Integer

from griffin_eqx.data import Batch
from griffin_eqx.model import LanguageModel
from griffin_eqx.task import EvalSet, Split
from griffin_eqx.training.global_arrays import on_host
from griffin_eqx.training.objective import TokenBatch, evaluate_batch, init_batch_cache
from griffin_eqx.training.outcome import Bucket, SetOutcome

Watch = Callable[[int, int], None]
"""Told how far an evaluation is: batches judged, and how many there are."""

Put = Callable[[Batch], TokenBatch]
"""Puts a batch on the devices (`OnMesh.any_batch`)."""

CountBytes = Callable[[Integer[np.ndarray, "batch seq_len"]], int]
"""How many bytes of text the targets of a batch stand for (`AbstractTask.num_bytes`)."""


def evaluate(
    model: LanguageModel,
    examined: EvalSet,
    *,
    split: Split,
    num_bytes: CountBytes,
    carry_max_seq_len: int,
    watch: Watch | None = None,
    put: Put | None = None,
) -> SetOutcome:
    """Reads every batch of a set.

    Args:
      model: The model.
      examined: The set.
      split: The split that it is of.
      num_bytes: Counts the bytes of text among targets.
      carry_max_seq_len: The longest document that a carried cache must hold.
      watch: Told of each batch.
      put: Puts a batch on the devices; on the default one when None.

    Returns:
      All measures; sums are float64, in a fixed order. Its `tokens_per_second` leaves out the first batch, which
      compiles, and is missing where there is no other.
    """
    started = compiled = time.monotonic()
    sums = _Sums(examined.seq_len)
    for batch, nll, predicted in _judged(model, examined, carry_max_seq_len, put or _on_device):
        sums.add(batch.targets, nll, predicted, num_bytes(batch.targets))
        if sums.batches == 1:
            compiled = time.monotonic()
        if watch is not None:
            watch(sums.batches, examined.num_batches)
    now = time.monotonic()
    timed = {"seconds": now - started}
    if sums.batches > 1:
        tokens = sums.tokens * (sums.batches - 1) / sums.batches
        timed["tokens_per_second"] = tokens / max(now - compiled, 1e-9)
    return sums.outcome(examined, split, timed)


class _Sums:
    """What a set comes to, batch by batch."""

    def __init__(self, seq_len: int):
        self.nll = 0.0
        self.bytes = self.rows = self.exact = self.batches = self.tokens = 0
        # A column is a position in the row.
        self.column_nll = np.zeros(seq_len)
        self.column_targets, self.column_hits = np.zeros((2, seq_len), np.int64)

    def add(
        self,
        targets: Integer[np.ndarray, "batch seq_len"],
        nll: Float[np.ndarray, "batch seq_len"],
        predicted: Bool[np.ndarray, "batch seq_len"],
        num_bytes: int,
    ) -> None:
        real = targets >= 0
        wide = nll.astype(np.float64)
        self.nll += float(wide.sum())
        self.bytes += num_bytes
        self.rows += int(real.any(1).sum())
        self.exact += int((real.any(1) & (predicted | ~real).all(1)).sum())
        self.batches += 1
        self.tokens += targets.size
        self.column_nll += wide.sum(0)
        self.column_targets += real.sum(0)
        self.column_hits += predicted.sum(0)

    def outcome(self, examined: EvalSet, split: Split, timed: dict[str, float]) -> SetOutcome:
        targets, hits = int(self.column_targets.sum()), int(self.column_hits.sum())
        return SetOutcome(
            split=split,
            name=examined.name,
            seq_len=examined.seq_len,
            rows=self.rows,
            targets=targets,
            bytes=self.bytes,
            loss=_finite(self.nll / max(targets, 1)),
            bits_per_byte=_finite(self.nll / math.log(2) / self.bytes) if self.bytes else None,
            accuracy=hits / max(targets, 1),
            exact=self.exact / max(self.rows, 1),
            by_position=tuple(self._buckets()),
            time=timed,
        )

    def _buckets(self) -> Iterator[Bucket]:
        """Positions 0, 1, 2 to 3, 4 to 7, ...; those without targets are left out."""
        start, stop = 0, 1
        while start < len(self.column_nll):
            stop = min(stop, len(self.column_nll))
            targets = int(self.column_targets[start:stop].sum())
            if targets:
                loss = float(self.column_nll[start:stop].sum()) / targets
                hits = int(self.column_hits[start:stop].sum())
                yield Bucket(start, stop, targets, _finite(loss), hits / targets)
            start, stop = stop, 2 * stop


def _judged(
    model: LanguageModel, examined: EvalSet, carry_max_seq_len: int, put: Put
) -> Iterator[tuple[Batch, np.ndarray, np.ndarray]]:
    """Each batch with its `(nll, predicted)`; the next one is cut while the device is at this one."""
    cache, pending = None, None
    for index in range(examined.num_batches):
        batch = examined.batch(index)
        if index == 0 and examined.carry:
            cache = _init_batch_cache(model, len(batch.length), carry_max_seq_len)
        nll, predicted, cache = _evaluate_batch(model, put(batch), cache)
        if pending is not None:
            yield pending[0], *on_host(pending[1])
        pending = batch, (nll, predicted)
    if pending is not None:
        yield pending[0], *on_host(pending[1])


def _on_device(batch: Batch) -> TokenBatch:
    return TokenBatch(*map(jnp.asarray, batch))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


_evaluate_batch = eqx.filter_jit(evaluate_batch)
_init_batch_cache = eqx.filter_jit(init_batch_cache)
