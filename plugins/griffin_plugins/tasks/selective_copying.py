"""Selective copying: remember the data among the noise, in order."""

import dataclasses
from typing import ClassVar

import numpy as np

from griffin_eqx.data.packing import IGNORE, Batch
from griffin_eqx.errors import OptionError
from griffin_eqx.synthetic import AbstractSyntheticTask, one_document
from griffin_plugins.tasks._draws import distinct

NOISE = 0


@dataclasses.dataclass(frozen=True)
class SelectiveCopyingOptions:
    """Options of selective copying.

    Attributes:
      vocab: Tokens: noise, one that asks, and at least two that are data.
      data_tokens: How many to remember.
    """

    vocab: int = 16
    data_tokens: int = 16

    def __post_init__(self):
        if not 4 <= self.vocab <= 65_536:
            raise OptionError("vocab", f"4 to 65536 (noise, one that asks, data), got {self.vocab}")
        if not 1 <= self.data_tokens <= 65_536:
            raise OptionError("data_tokens", f"1 to 65536, got {self.data_tokens}")


class SelectiveCopyingTask(AbstractSyntheticTask):
    """Data tokens stand at random places among noise; then they are asked for, one after the other.

    The paper (De et al. 2024, section 6.2 and appendix H) has a vocabulary of 16, 16 data tokens and rows of 1024
    tokens, and counts the loss of the output alone. It leaves open what is read while the output is written, and
    refers to Mamba (Gu and Dao 2023, arXiv:2312.00752, section 4.1.1), whose data come from the generator of S4
    (Gu et al. 2021). As there, token 0 is noise, the last token stands at every place of the output, so that the
    model does not read its own answers, and the data are the tokens between, with repetition. Unlike there, a row
    of `seq_len` tokens includes its output, and longer rows have more noise and not more data.
    """

    name: ClassVar[str] = "selective_copying"
    summary: ClassVar[str] = "repeat the data tokens that stood among the noise, in order"
    source: ClassVar[str] = "De et al. 2024, arXiv:2402.19427, section 6.2 and appendix H"
    Options: ClassVar[type] = SelectiveCopyingOptions

    @property
    def vocab_size(self) -> int:
        """All tokens, noise and the one that asks included."""
        return self.options.vocab

    @property
    def min_seq_len(self) -> int:
        """The data once, with no noise between, and once more for the output."""
        return 2 * self.options.data_tokens

    def rows(self, rng: np.random.Generator, num_rows: int, seq_len: int) -> Batch:
        """Draws rows: noise and data, then as many askings as there are data."""
        count, ask = self.options.data_tokens, self.options.vocab - 1
        begin = seq_len - count
        data = rng.integers(NOISE + 1, ask, (num_rows, count))
        places = np.sort(distinct(rng, num_rows, count, begin), axis=1)
        tokens = np.full((num_rows, seq_len), NOISE)
        np.put_along_axis(tokens, places, data, axis=1)
        tokens[:, begin:] = ask
        targets = np.full((num_rows, seq_len), IGNORE)
        targets[:, begin:] = data
        return one_document(tokens, targets)
