"""`file:PATH`: the user's own text, from a file or a folder."""

import gzip
import hashlib
import itertools
import lzma
import os
import zlib
from pathlib import Path

from griffin_eqx.data.corpus import SPLITS, Corpus, Document
from griffin_eqx.data.errors import DataError

MIN_BYTES = 100  # less has no splits worth the name
MAX_BYTES = 2**31  # a corpus lives in memory; this also stops a small archive that unpacks without end


def load_file(name: str, path: str) -> Corpus:
    """Loads a text file, or every file of a folder and the folders in it.

    Names that end in `.gz` and `.xz` are unpacked. Hidden files and folders, links to folders and empty files
    are passed over; everything else counts as text, whatever its name.

    A folder with three documents or more is split by document: in the order of the SHA-256 of their names,
    the first 5 % (at least one) are validation, the next 5 % test. Otherwise each file is cut, at line
    borders, into its first 90 % to train on, then 5 % and 5 %.

    Args:
      name: The corpus's name.
      path: Where the text is; `~` is the home folder.

    Raises:
      DataError: If there is nothing there, or less than 100 bytes or more than 2 GiB of text, or it cannot be
        read or unpacked.
    """
    documents = read_documents(path)
    total = sum(len(document.text) for document in documents)
    if total < MIN_BYTES:
        raise DataError(
            f"There are only {total} bytes of text; at least {MIN_BYTES} are needed.",
            where=f"in {path}",
            hint="Give a file with more text, or a folder with more files.",
        )
    splits = _split_by_document(documents) if len(documents) >= 3 else _split_by_lines(documents)
    empty = [split for split in SPLITS if not splits[split]]
    if empty:
        raise DataError(
            f"The text is too short to be cut: nothing is left for {' and '.join(empty)}.",
            where=f"in {path}",
            hint="Give a file with more text, or a folder with more files.",
        )
    return Corpus(name, splits, {"path": path, "documents": str(len(documents)), "bytes": str(total)})


def read_documents(path: str) -> list[Document]:
    """Reads a text file, or every file of a folder and the folders in it, as `load_file` does, without splits.

    Raises:
      DataError: If there is nothing there, or more than 2 GiB of text, or it cannot be read or unpacked.
    """
    if not path:
        raise DataError("No path is given.", where="after file:", hint="Give a file or a folder, file:PATH.")
    root = Path(os.path.expanduser(path))
    try:
        if root.is_dir():
            found = [(file.relative_to(root).as_posix(), file) for file in _visible_files(root)]
        elif root.is_file():
            found = [(root.name, root)]
        elif root.exists():
            raise DataError(
                "This is neither a file nor a folder.", where=f"at {path}", hint="Give a file or a folder."
            )
        else:
            raise DataError(
                "There is no such file or folder.",
                where=f"at {path}",
                hint="Check the path; it counts from the folder in which the command runs.",
            )
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _unreadable(path, error) from error
    documents = []
    room = MAX_BYTES
    for name, file in sorted(found):
        text = _read(file, room)
        room -= len(text)
        if text:
            documents.append(Document(name, text))
    return documents


def _visible_files(root: Path) -> list[Path]:
    def refuse(error: OSError):
        raise error

    found = []
    for folder, folders, files in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(folder, name) for name in files if not name.startswith("."))
        found += [path for path in paths if path.is_file()]  # no pipes or devices, which may never end
    return found


def _read(file: Path, room: int) -> bytes:
    """The text of one file, of at most `room` bytes."""
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(file.suffix.lower(), open)
    try:
        with opener(file, "rb") as stream:
            text = stream.read(room + 1)
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise DataError(
            f"This file cannot be unpacked: {error}.",
            where=f"in {file}",
            hint=f"Make it anew, or take the {file.suffix} off its name if it is plain text.",
        ) from error
    except OSError as error:
        raise _unreadable(str(file), error) from error
    if len(text) > room:
        raise DataError(
            f"There is more than {MAX_BYTES >> 30} GiB of text, and a corpus lives in memory.",
            where=f"at {file}",
            hint="Give a part of it.",
        )
    return text


def _unreadable(path: str, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or error
    return DataError(
        f"This cannot be read: {reason}.", where=f"at {path!r}", hint="Check its name and rights."
    )


def _split_by_document(documents: list[Document]) -> dict[str, tuple[Document, ...]]:
    def key(document: Document) -> bytes:
        return hashlib.sha256(document.name.encode("utf-8", "surrogateescape")).digest()

    part = max(1, round(len(documents) * 0.05))
    order = sorted(documents, key=key)
    parts = {"train": order[2 * part :], "validation": order[:part], "test": order[part : 2 * part]}
    return {split: tuple(sorted(parts[split], key=lambda document: document.name)) for split in SPLITS}


def _split_by_lines(documents: list[Document]) -> dict[str, tuple[Document, ...]]:
    splits: dict[str, tuple[Document, ...]] = dict.fromkeys(SPLITS, ())
    for document in documents:
        for split, text in zip(SPLITS, _cut(document.text), strict=True):
            if text:
                splits[split] += (Document(document.name, text),)
    return splits


def _cut(text: bytes) -> list[bytes]:
    """Cuts a text into 90 %, 5 % and 5 %, each up to the end of a line where one ends in the next part.

    A text without line ends, as some benchmarks are, is cut where the figures fall.
    """
    figures = [len(text) * 90 // 100, len(text) * 95 // 100, len(text)]
    cuts = [0]
    for figure, following in itertools.pairwise(figures):
        end = text.find(b"\n", max(0, figure - 1), following - 1)  # ends before the next part does
        cuts.append(end + 1 if end >= 0 else figure)
    cuts.append(len(text))
    return [text[start:end] for start, end in itertools.pairwise(cuts)]
