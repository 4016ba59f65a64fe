"""What a corpus is: named documents in three splits."""

import dataclasses
import hashlib
from collections.abc import Mapping

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Document:
    """One text: a play, a source file, a file of the user's.

    Attributes:
      name: Unique within its split, and the same on every machine (never an absolute path).
      text: Its bytes, UTF-8 where it is ours; not empty.
    """

    name: str
    text: bytes = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Documents in three splits, which share no document.

    Attributes:
      name: The name that `load_corpus` was given.
      splits: `train`, `validation` and `test`, each with one document or more, in a fixed order.
      source: Where the text comes from, as facts for `env.json`: versions, licences.
    """

    name: str
    splits: Mapping[str, tuple[Document, ...]] = dataclasses.field(repr=False)
    source: dict[str, str]
    digest: str = dataclasses.field(init=False)
    """SHA-256 (hex) over the names and bytes of all documents, split by split."""

    def __post_init__(self):
        assert tuple(self.splits) == SPLITS
        assert all(self.splits.values())
        object.__setattr__(self, "digest", _digest(self.splits))

    def num_bytes(self, split: str) -> int:
        """The length of one split's text, in bytes."""
        return sum(len(document.text) for document in self.splits[split])


def _digest(splits: Mapping[str, tuple[Document, ...]]) -> str:
    total = hashlib.sha256()
    for split in SPLITS:
        total.update(f"{split} {len(splits[split])}\n".encode())
        for document in splits[split]:
            # The length before the text keeps two documents from passing for one.
            name = document.name.encode("utf-8", "surrogateescape")
            total.update(b"%d %s %d\n" % (len(name), name, len(document.text)))
            total.update(document.text)
    return total.hexdigest()
