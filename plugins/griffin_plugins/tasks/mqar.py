"""Multi-query associative recall: key-value pairs, then keys whose values are asked for."""

import dataclasses
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Int

from griffin_eqx.config import DataConfig
from griffin_eqx.data.packing import IGNORE, Batch
from griffin_eqx.errors import OptionError
from griffin_eqx.synthetic import AbstractSyntheticTask, one_document
from griffin_plugins.tasks._draws import distinct

BLANK = 0


@dataclasses.dataclass(frozen=True)
class MQAROptions:
    """Options of multi-query associative recall.

    Attributes:
      vocab: Tokens: blank, then keys, and from half of it on values.
      pairs: Key-value pairs a row; a sixteenth of `data.seq_len` when left out.
      power: The gap g between pairs and a query has the probability g ** (power - 1), up to a factor: 1 is uniform,
        and the smaller, the nearer.
      filler: What stands where nothing is asked: the blank token, or random values.
    """

    vocab: int = 8192
    pairs: int | None = None
    power: float = 0.01
    filler: Literal["blank", "random"] = "blank"

    def __post_init__(self):
        if not 4 <= self.vocab <= 65_536:
            raise OptionError("vocab", f"4 to 65536 (blank, keys, values), got {self.vocab}")
        if self.pairs is not None and not 1 <= self.pairs <= 16_384:
            raise OptionError("pairs", f"1 to 16384, got {self.pairs}")
        if not 0 < self.power <= 1:
            raise OptionError("power", f"above 0, and at most 1, which is uniform; got {self.power}")


class MQARTask(AbstractSyntheticTask):
    """First all pairs of a key and its value; then each key once more, at a random gap, and the answer is its value.

    From "Zoology" (Arora et al. 2023, arXiv:2312.04927), as its published code has it for figure 2: 8192 tokens,
    keys from the lower half and values from the upper one, all different in a row; gaps between pairs and queries
    in steps of two tokens, drawn without replacement by a power law with exponent 0.01 - 1; the i-th pair takes the
    i-th gap drawn; the rest is blank, the place of an answer too: no answer is ever read. The figure has 4, 8, 16
    and 64 pairs in rows of 64, 128, 256 and 512 tokens, so a sixteenth of the row is the default here. Longer rows
    of an evaluation keep the pairs of training. The metric is the figure's: accuracy over all queries.

    With `filler=random` that code puts any token where nothing is asked; here it is values alone, so that a key
    stands in a row exactly twice and every answer is certain.
    """

    name: ClassVar[str] = "mqar"
    summary: ClassVar[str] = "key-value pairs, then the value of each key that is asked for"
    source: ClassVar[str] = "Arora et al. 2023, arXiv:2312.04927"
    Options: ClassVar[type] = MQAROptions

    def __init__(self, options: MQAROptions, data: DataConfig):
        self._pairs = max(1, data.seq_len // 16) if options.pairs is None else options.pairs
        # Keys are fewer than values: one of their half is the blank token.
        if options.vocab // 2 - 1 < self._pairs:
            raise OptionError(
                "vocab",
                f"{self._pairs} pairs need at least {2 * (self._pairs + 1)} tokens, got {options.vocab}",
            )
        super().__init__(options, data)

    @property
    def vocab_size(self) -> int:
        """All tokens: blank, keys and values."""
        return self.options.vocab

    @property
    def min_seq_len(self) -> int:
        """Two tokens a pair, and two a query."""
        return 4 * self._pairs

    def rows(self, rng: np.random.Generator, num_rows: int, seq_len: int) -> Batch:
        """Draws rows."""
        half = self.options.vocab // 2
        keys = 1 + distinct(rng, num_rows, self._pairs, half - 1)
        values = half + distinct(rng, num_rows, self._pairs, self.options.vocab - half)
        shape = (num_rows, seq_len)
        if self.options.filler == "random":
            tokens = rng.integers(half, self.options.vocab, shape)
        else:
            tokens = np.full(shape, BLANK)
        tokens[:, 0 : 2 * self._pairs : 2] = keys
        tokens[:, 1 : 2 * self._pairs : 2] = values
        queries = 2 * (self._pairs + self._gaps(rng, num_rows, (seq_len - 2 * self._pairs) // 2))
        np.put_along_axis(tokens, queries, keys, axis=1)
        targets = np.full(shape, IGNORE)
        np.put_along_axis(targets, queries, values, axis=1)
        return one_document(tokens, targets)

    def _gaps(self, rng: np.random.Generator, num_rows: int, slots: int) -> Int[np.ndarray, "num_rows pairs"]:
        """Draws a slot for each pair, without replacement, slot g in proportion to (g + 1) ** (power - 1).

        As the order in which exponential clocks of these rates ring: the next to ring is each of those left in
        proportion to its rate.
        """
        rates = np.arange(1, slots + 1) ** (self.options.power - 1.0)
        rings = rng.exponential(size=(num_rows, slots)) / rates
        first = np.argpartition(rings, self._pairs - 1, axis=1)[:, : self._pairs]
        order = np.argsort(np.take_along_axis(rings, first, axis=1), axis=1)
        return np.take_along_axis(first, order, axis=1)
