"""Text as its tokens come: a character is given out when it is whole."""

from collections.abc import Callable, Iterable

REPLACEMENT = "\ufffd"


class TextStream:
    """Turns tokens into text piece by piece; the pieces together are the text of all tokens at once.

    A token may hold a part of a character only. Such a part decodes to U+FFFD at the end, and is held back until the
    next tokens show whether it becomes a character. A few tokens that were given out stay in front of the new
    ones, since some tokenizers drop a space that leads a text.

    >>> from griffin_eqx.data import ByteTokenizer
    >>> stream = TextStream(ByteTokenizer().decode)
    >>> [stream.feed([byte]) for byte in "né!".encode()], stream.end()
    (['n', '', 'é', '!'], '')
    """

    def __init__(self, decode: Callable[[list[int]], str]):
        """Begins a text.

        Args:
          decode: A tokenizer's `decode`.
        """
        self._decode = decode
        self._tokens: list[int] = []
        self._given = 0  # characters of the text of `_tokens`

    def feed(self, tokens: Iterable[int]) -> str:
        """What is certain once these tokens have come."""
        new = list(tokens)
        if not new:
            return ""
        self._tokens += new
        text = self._decode(self._tokens)
        whole = text[:-1] if text.endswith(REPLACEMENT) else text
        piece = whole[self._given :]
        self._given = max(self._given, len(whole))
        if whole == text:
            self._tokens = new
            self._given = len(self._decode(new))
        return piece

    def end(self) -> str:
        """What was held back: nothing more comes."""
        piece = self._decode(self._tokens)[self._given :]
        self._tokens, self._given = [], 0
        return piece
