"""The tokenizers by name."""

import difflib
from pathlib import Path

from griffin_eqx.data.errors import DataError
from griffin_eqx.data.shakespeare import load_vocabulary
from griffin_eqx.data.tokenizer import ByteTokenizer, Tokenizer

HUGGING_FACE, SENTENCEPIECE = "tokenizer.json", "tokenizer.model"
"""What the two kinds of file are called in a folder of weights, and in a run directory."""

TOKENIZERS = (HUGGING_FACE, SENTENCEPIECE)
"""Both names, the one that is taken first in front."""

_BYTES, _SHAKESPEARE, _FILE = "bytes", "shakespeare", "file:"

_NAMED = (_BYTES, _SHAKESPEARE)


def open_tokenizer(name: str | Path) -> Tokenizer:
    """Opens a tokenizer. Nothing is ever downloaded.

    Args:
      name: `bytes`; or `shakespeare`, 2,048 byte pairs made of that corpus's training plays; or `file:PATH` (or
        a `Path`) of
        a Hugging Face `tokenizer.json`, whatever its name (extra `tokenizers`);
        a SentencePiece model, `*.model`;
        a folder with a `tokenizer.json` or else a `tokenizer.model` in it, such as one of weights.

    Raises:
      DataError: If there is no such tokenizer, its file is damaged, or the library that reads it is missing.

    >>> open_tokenizer("bytes").vocab_size
    257
    """
    if isinstance(name, str) and not name.startswith(_FILE):
        if name == _BYTES:
            return ByteTokenizer()
        if name == _SHAKESPEARE:
            from griffin_eqx.data.sentencepiece import SentencePieceTokenizer

            return SentencePieceTokenizer(load_vocabulary(), name=name)
        raise DataError(
            f"There is no tokenizer {name!r}.",
            where=f"known: {', '.join(_NAMED)}, {_FILE}PATH",
            hint=_suggest(name),
        )
    given = str(name).removeprefix(_FILE)
    path = _located(given)
    content = _read(path)
    label = f"{_FILE}{given}"
    # The libraries are imported only for a file of theirs.
    if path.suffix.lower() == ".json":
        from griffin_eqx.data.tokenizer_json import HuggingFaceTokenizer

        return HuggingFaceTokenizer(content, name=label)
    if path.suffix.lower() == ".model":
        from griffin_eqx.data.sentencepiece import SentencePieceTokenizer

        return SentencePieceTokenizer(content, name=label)
    raise DataError(
        "This is no tokenizer's file: its name ends neither in .json nor in .model.",
        where=f"at {given}",
        hint=f"Give a Hugging Face {HUGGING_FACE} or a SentencePiece *.model.",
    )


def find_tokenizer(folder: Path) -> Path | None:
    """The tokenizer's file in a folder; None where there is none."""
    return next((folder / name for name in TOKENIZERS if (folder / name).is_file()), None)


def _located(given: str) -> Path:
    """The file: `given`, or the one in the folder `given`."""
    if not given:
        raise DataError("No path is given.", where=f"after {_FILE}", hint="Give a file, file:PATH.")
    try:
        path = Path(given).expanduser()
        if path.is_dir():
            found = find_tokenizer(path)
            if found is None:
                raise DataError(
                    "This folder has no tokenizer.",
                    where=f"in {given}",
                    hint=f"Put a {HUGGING_FACE} or a {SENTENCEPIECE} there, or name the file itself.",
                )
            return found
        if path.is_file():
            return path
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such home, a NUL
        raise _unreadable(given, error) from error
    raise DataError(
        "There is no such tokenizer.",
        where=f"at {given}",
        hint="Check the path; it counts from the folder in which the command runs.",
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(str(path), error) from error


def _unreadable(path: str, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or error
    return DataError(
        f"This tokenizer cannot be read: {reason}.", where=f"at {path!r}", hint="Check its name and rights."
    )


def _suggest(name: str) -> str:
    if close := difflib.get_close_matches(name.lower(), _NAMED, n=1):
        return f"Did you mean {close[0]!r}?"
    try:
        is_path = name != "" and Path(name).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        is_path = False
    return f"Did you mean {_FILE + name!r}?" if is_path else f"For a tokenizer of your own give {_FILE}PATH."
