"""The corpora by name."""

import difflib
from collections.abc import Callable
from pathlib import Path

from griffin_eqx.data.corpus import Corpus
from griffin_eqx.data.errors import DataError
from griffin_eqx.data.pysource import load_pysource
from griffin_eqx.data.shakespeare import load_shakespeare, load_shakespeare_1m
from griffin_eqx.data.textfile import load_file

_CORPORA: dict[str, Callable[[], Corpus]] = {
    "shakespeare": load_shakespeare,
    "shakespeare-1m": load_shakespeare_1m,
    "pysource": load_pysource,
}
_FILE = "file:"


def load_corpus(name: str) -> Corpus:
    """Loads a corpus, whole, into memory. Nothing is ever downloaded.

    Args:
      name: One of
        `shakespeare`: 38 plays, 5 MB, shipped with the package;
        `shakespeare-1m`: eight of its training plays, 1.1 MB, with the same validation and test plays;
        `pysource`: the Python source of installed packages, 50 MB (`griffin_eqx/data/pysource.py`);
        `file:PATH`: a text file, `.gz`, `.xz`, or a folder of these (`griffin_eqx/data/textfile.py`).

    Raises:
      DataError: If there is no such corpus, or its text is missing, damaged or too short.

    >>> sorted(load_corpus("shakespeare-1m").splits)
    ['test', 'train', 'validation']
    """
    if name.startswith(_FILE):
        return load_file(name, name.removeprefix(_FILE))
    if name in _CORPORA:
        return _CORPORA[name]()
    raise DataError(
        f"There is no corpus {name!r}.",
        where=f"known: {', '.join(_CORPORA)}, {_FILE}PATH",
        hint=_suggest(name),
    )


def _suggest(name: str) -> str:
    near = difflib.get_close_matches(name.lower(), _CORPORA, n=1)
    if near:
        return f"Did you mean {near[0]!r}?"
    try:
        is_path = name != "" and Path(name).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        is_path = False
    return f"Did you mean {_FILE + name!r}?" if is_path else f"For text of your own give {_FILE}PATH."
