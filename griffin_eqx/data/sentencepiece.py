"""SentencePiece models (`*.model`), such as RecurrentGemma's."""

import functools
from collections.abc import Iterable

import numpy as np
import sentencepiece
from jaxtyping import Int64, UInt

from griffin_eqx.data import subword
from griffin_eqx.data.errors import DataError
from griffin_eqx.data.tokenizer import Tokenizer, TokenizerFile


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model; a document begins with its `bos`, or with its `eos` where it has no other.

    RecurrentGemma's has 256,000 ids: pad 0, eos 1, bos 2.

    Args:
      content: The model file's bytes.
      name: What configs call it.

    Raises:
      DataError: If the file is damaged or has neither id.
    """

    def __init__(self, content: bytes, *, name: str):
        self._name = name
        self._content = content
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_proto=content)
            self._vocab_size = int(self._model.get_piece_size())
        except Exception as error:
            raise subword.damaged(name, error) from None
        self._specials = [int(i) for i in (self._model.bos_id(), self._model.eos_id()) if i >= 0]
        if not self._specials:
            raise DataError(
                "This tokenizer has no token that begins a document.",
                where=f"at {name}",
                hint="Train it with a bos or an eos token.",
            )

    @property
    def name(self) -> str:
        """The name it was opened by."""
        return self._name

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the file."""
        return subword.digest("sentencepiece", self._content)

    @property
    def vocab_size(self) -> int:
        """The number of pieces."""
        return self._vocab_size

    @property
    def document(self) -> int:
        """`bos`, or `eos` where there is no other."""
        return self._specials[0]

    @property
    def ends(self) -> tuple[int, ...]:
        """`bos` and `eos`."""
        return tuple(dict.fromkeys(self._specials))

    @property
    def file(self) -> TokenizerFile:
        """The model."""
        return TokenizerFile("tokenizer.model", self._content)

    @property
    def byte_counts(self) -> Int64[np.ndarray, " vocab_size"]:
        """One a byte piece, none a special or unknown one, otherwise the piece's bytes with spaces as spaces."""
        return self._byte_counts

    @functools.cached_property
    def _byte_counts(self) -> Int64[np.ndarray, " vocab_size"]:
        model = self._model

        def count(i: int) -> int:
            if model.is_control(i) or model.is_unused(i) or model.is_unknown(i):
                return 0
            return 1 if model.is_byte(i) else len(model.id_to_piece(i).replace(subword.SPACE, " ").encode())

        counts = np.array([count(i) for i in range(self._vocab_size)], np.int64)
        # A space that the model puts before every text.
        counts[self.document] = min(0, 1 - int(counts[self.encode("a")].sum()))
        return counts

    def encode(self, text: str | bytes) -> UInt[np.ndarray, " seq_len"]:
        """Gives the ids of `text`; what looks like a control symbol in it is text.

        Raises:
          DataError: If it is no UTF-8.
        """
        ids = self._model.encode(subword.as_text(text), out_type=int, add_bos=False, add_eos=False)
        return np.array(ids, self.dtype)

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """Gives the text of `ids`; control symbols are dropped, invalid UTF-8 becomes U+FFFD.

        Raises:
          ValueError: If an id is not of this vocabulary.
        """
        return str(self._model.decode(subword.as_ids(ids, self._vocab_size, "SentencePieceTokenizer")))
