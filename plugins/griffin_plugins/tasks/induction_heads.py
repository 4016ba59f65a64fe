"""Induction heads: say what followed the special token."""

import dataclasses
from typing import ClassVar

import numpy as np

from griffin_eqx.data.packing import IGNORE, Batch
from griffin_eqx.errors import OptionError
from griffin_eqx.synthetic import AbstractSyntheticTask, one_document


@dataclasses.dataclass(frozen=True)
class InductionHeadsOptions:
    """Options of induction heads.

    Attributes:
      vocab: Tokens, the special one included.
    """

    vocab: int = 16

    def __post_init__(self):
        if not 3 <= self.vocab <= 65_536:
            raise OptionError(
                "vocab", f"3 to 65536 (the special token and at least two others), got {self.vocab}"
            )


class InductionHeadsTask(AbstractSyntheticTask):
    """Random tokens, among them once the special one; it comes again as the last, and the answer is what followed it.

    The paper (De et al. 2024, section 6.2 and appendix H) has a vocabulary of 16, trains with rows of 256 tokens,
    and masks all positions but the answer; the task is Mamba's (Gu and Dao 2023, arXiv:2312.00752, section 4.1.2).
    Left open and chosen here: the vocabulary includes the special token, which is the last; it stands anywhere but
    in the last two places, uniformly; the other tokens are uniform over the rest. There is one answer a row.
    """

    name: ClassVar[str] = "induction_heads"
    summary: ClassVar[str] = "repeat the token that followed the special token"
    source: ClassVar[str] = "De et al. 2024, arXiv:2402.19427, section 6.2 and appendix H"
    Options: ClassVar[type] = InductionHeadsOptions

    @property
    def vocab_size(self) -> int:
        """All tokens, the special one included."""
        return self.options.vocab

    @property
    def min_seq_len(self) -> int:
        """The special token, the answer, the special token."""
        return 3

    def rows(self, rng: np.random.Generator, num_rows: int, seq_len: int) -> Batch:
        """Draws rows."""
        special = self.options.vocab - 1
        tokens = rng.integers(0, special, (num_rows, seq_len), np.int32)
        place = rng.integers(0, seq_len - 2, num_rows)
        row = np.arange(num_rows)
        tokens[row, place] = special
        tokens[:, -1] = special
        targets = np.full((num_rows, seq_len), IGNORE, np.int32)
        targets[:, -1] = tokens[row, place + 1]
        return one_document(tokens, targets)
