"""One text as evaluation sets: the same tokens in rows of several lengths. Imports no JAX."""

from griffin_eqx.config import DataConfig
from griffin_eqx.data import DataError, EvalLoader, TokenStream
from griffin_eqx.task import EvalSet


def text_sets(
    stream: TokenStream, data: DataConfig, *, where: str, max_tokens: int | None = None
) -> tuple[EvalSet, ...]:
    """A text in rows of `data.seq_len`, then of each of `data.eval_lengths`.

    Every token but the first is predicted once in each set. Rows do not overlap: without `data.carry` a row knows
    nothing of what stands before it, so its first tokens are predicted from little, and a longer row has more of
    the text before each token. With `data.carry` the cache is handed on from batch to batch, and only where one of
    the `data.batch_size` spans that are read side by side begins is the text before it unknown.

    Args:
      stream: The text.
      data: Lengths, rows of a batch, and `carry`.
      where: What an error calls the text.
      max_tokens: Take only this many tokens, the first; all when None.

    Raises:
      DataError: If the text has less than two tokens, or less than a row of `data.eval_lengths`.
    """
    lengths = dict.fromkeys((data.seq_len, *data.eval_lengths))
    return tuple(_text_set(stream, data, where, max_tokens, length) for length in lengths)


def _text_set(
    stream: TokenStream, data: DataConfig, where: str, max_tokens: int | None, seq_len: int
) -> EvalSet:
    longer = seq_len > data.seq_len
    # As many tokens a batch, so that long rows need no more memory.
    rows = data.batch_size if not longer else max(1, data.batch_size * data.seq_len // seq_len)
    known = min(len(stream), max_tokens or len(stream))
    if longer and known <= seq_len:
        raise DataError(
            f"There is too little text for data.eval_lengths={seq_len}: {known} tokens.",
            where=where,
            hint="Leave that length out, let more tokens be read, or give more text.",
        )
    loader = EvalLoader(stream, seq_len=seq_len, batch_size=rows, max_tokens=max_tokens, carry=data.carry)
    return EvalSet(f"length {seq_len}", seq_len, len(loader), loader.batch, carry=data.carry)
