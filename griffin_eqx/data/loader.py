"""Batches by their number: no state, so that a run resumes from one integer."""

import abc
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int

from griffin_eqx.data.errors import DataError
from griffin_eqx.data.packing import Batch, TokenStream, cut


class Loader(abc.ABC):
    """Gives the batch of any step, each as cheap as the next.

    A batch is a pure function of the stream, the loader's arguments and the step: it is the same in every
    process, and whatever was asked for before.

    Attributes:
      seq_len: Tokens a row.
      batch_size: Rows a batch.
    """

    seq_len: int
    batch_size: int

    @abc.abstractmethod
    def batch(self, step: int) -> Batch:
        """Gives the batch of a step, which counts from 0.

        Raises:
          IndexError: If there is no such step.
        """

    @abc.abstractmethod
    def continues(self, step: int) -> Bool[np.ndarray, " batch"]:
        """Says for each row whether its first token follows the last token of the same row one step before.

        Where it does not, what was carried over for that row must be dropped.
        """


class TrainLoader(Loader):
    """Windows of the stream without end, epoch after epoch.

    Independent windows (`carry=False`): an epoch tiles the stream with windows of `seq_len` tokens from a
    seeded offset, another one each epoch so that the borders move, and visits each window once in a seeded
    order. What stands before a window is unknown, so positions count from its start.

    Carried rows (`carry=True`), for truncated back-propagation: `batch_size` equal spans of the stream are
    read side by side, so that row b of a step goes on where row b of the step before stopped, and positions
    count on. At the end of the spans comes another epoch, from another seeded offset, with nothing known.

    In both, the stream is a ring (`packing.cut`), and the few tokens that an epoch leaves out, fewer than
    `seq_len` a span, are other ones each time.

    Args:
      stream: The training split.
      seq_len: Tokens a row, 1 or more.
      batch_size: Rows a batch, 1 or more.
      seed: 0 to 2**32 - 1.
      carry: Whether rows go on from step to step.

    Raises:
      DataError: If a number is out of range, or the stream holds less than one window (a row, with `carry`).
    """

    def __init__(self, stream: TokenStream, *, seq_len: int, batch_size: int, seed: int, carry: bool = False):
        _check_sizes(seq_len, batch_size)
        if not 0 <= seed < 2**32:
            raise DataError(
                f"The seed is out of range: seed={seed}.",
                where="in the data loader",
                hint="Give a seed from 0 to 4294967295.",
            )
        # A span is what one row reads of an epoch: all of the stream, or its share of it.
        self._span = len(stream) // (batch_size if carry else 1)
        if self._span < seq_len:
            needed = seq_len * (batch_size if carry else 1)
            raise DataError(
                f"There is too little text to train on: {len(stream)} tokens, and at least {needed} are "
                f"needed for seq_len={seq_len}"
                + (f" and batch_size={batch_size} carried rows." if carry else "."),
                where="in the training split",
                hint="Make seq_len or batch_size smaller, or give more text.",
            )
        self.seq_len = seq_len
        self.batch_size = batch_size
        self._windows = self._span // seq_len
        self._stream = stream
        self._seed = seed
        self._carry = carry
        self._visits = None if carry else _shuffled(self._windows, batch_size, seed)

    @property
    def windows_per_epoch(self) -> int:
        """How many windows (rows) an epoch has; divided by `batch_size`, how many steps."""
        return self._windows * (self.batch_size if self._carry else 1)

    def batch(self, step: int) -> Batch:
        """Gives the batch of a step, 0 or later; every row is full.

        Raises:
          IndexError: If `step` is negative.
        """
        if step < 0:
            raise IndexError(f"Steps count from 0: got step={step}.")
        start, known_from = self._starts(step)
        length = np.full(self.batch_size, self.seq_len)
        return cut(self._stream, start, length, self.seq_len, known_from)

    def continues(self, step: int) -> Bool[np.ndarray, " batch"]:
        """Says whether the rows go on from the step before: with `carry`, except where a pass begins."""
        return np.full(self.batch_size, self._carry and step % self._windows != 0)

    def _starts(self, step: int) -> tuple[Int[np.ndarray, " batch"], Int[np.ndarray, " batch"]]:
        """Where the rows of a step begin, and from where on their text is known."""
        if self._visits is None:
            epoch, window = divmod(step, self._windows)
            first = self._offset(epoch) + self._span * np.arange(self.batch_size)
            return first + window * self.seq_len, first
        epoch, window = np.divmod(np.asarray(self._visits[step]), self._windows)
        epochs, which = np.unique(epoch, return_inverse=True)
        offset = np.array([self._offset(int(e)) for e in epochs])[which]
        start = offset + window * self.seq_len
        return start, start

    def _offset(self, epoch: int) -> int:
        return int(np.random.default_rng([self._seed, epoch]).integers(len(self._stream)))


def _shuffled(windows: int, batch_size: int, seed: int):
    """The windows to visit, without end: a Grain dataset of batches of `epoch * windows + window`."""
    import grain  # here, and not above: it takes a second and imports JAX

    order = grain.MapDataset.range(windows).shuffle(seed=seed).repeat()
    return order.map_with_index(lambda place, window: place - place % windows + window).batch(batch_size)


class EvalLoader(Loader):
    """All of a stream once: every token but the first is a target exactly once.

    The batches are `batch(0)` to `batch(len(loader) - 1)`; iterating gives them in this order. Where the text
    ends, rows are padded, whole rows too (`length` 0).

    Args:
      stream: The validation or test split.
      seq_len: Tokens a row, 1 or more.
      batch_size: Rows a batch, 1 or more.
      max_tokens: Take only this many tokens, the first; all when None.
      carry: False: rows are independent windows and know nothing of what stands before them. True:
        `batch_size` equal spans are read side by side, so that each row's cache can be carried to the next
        batch.

    Raises:
      DataError: If a number is out of range, or there are fewer than two tokens.
    """

    def __init__(
        self,
        stream: TokenStream,
        *,
        seq_len: int,
        batch_size: int,
        max_tokens: int | None = None,
        carry: bool = False,
    ):
        _check_sizes(seq_len, batch_size)
        num_tokens = len(stream) if max_tokens is None else min(len(stream), max_tokens)
        if num_tokens < 2:
            raise DataError(
                f"There is too little text to evaluate: {len(stream)} tokens, max_tokens={max_tokens}, and "
                "at least 2 are needed.",
                where="in the validation or test split",
                hint="Give more text, or a larger max_tokens.",
            )
        self.seq_len = seq_len
        self.batch_size = batch_size
        self._stream = stream
        self._carry = carry
        self._targets = num_tokens - 1
        # The tokens between one row of a batch and the next, and between one batch and the next.
        self._row_stride = -(-self._targets // batch_size) if carry else seq_len
        self._batch_stride = seq_len if carry else seq_len * batch_size
        self._len = -(-(self._row_stride if carry else self._targets) // self._batch_stride)

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[Batch]:
        return map(self.batch, range(len(self)))

    def batch(self, step: int) -> Batch:
        """Gives one batch, 0 to `len(self) - 1`.

        Raises:
          IndexError: If there is no such batch.
        """
        if not 0 <= step < len(self):
            raise IndexError(f"There are {len(self)} batches, counted from 0: got step={step}.")
        first = self._row_stride * np.arange(self.batch_size)
        start = first + step * self._batch_stride
        end = np.minimum(first + self._row_stride, self._targets) if self._carry else self._targets
        length = np.clip(end - start, 0, self.seq_len)
        return cut(self._stream, start, length, self.seq_len, known_from=first if self._carry else start)

    def continues(self, step: int) -> Bool[np.ndarray, " batch"]:
        """Says whether the rows go on from the batch before: with `carry`, all but the first batch's."""
        return np.full(self.batch_size, self._carry and step != 0)


def _check_sizes(seq_len: int, batch_size: int) -> None:
    wrong = [
        f"{name}={value}" for name, value in (("seq_len", seq_len), ("batch_size", batch_size)) if value < 1
    ]
    if wrong:
        raise DataError(
            f"A batch needs at least one row and one token: {', '.join(wrong)}.",
            where="in the data loader",
            hint="Give 1 or more.",
        )
