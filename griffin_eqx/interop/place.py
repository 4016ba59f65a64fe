"""Folders that appear whole or not at all."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from griffin_eqx.errors import WeightsError

_WRITTEN = re.compile(
    r"(config\.(toml|json)|weights\.json|generation_config\.json|[\w.-]*\.safetensors(\.index\.json)?"
    r"|(special_tokens_map|tokenizer_config)\.json|tokenizer\.(json|model))"
)
"""Files that folders of weights hold: a folder of these alone may be replaced."""


@contextmanager
def new_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Gives an empty folder beside `path` that takes its place when the block has ended well.

    Args:
      path: Where the folder will be; its parents are made.
      overwrite: Whether a folder that is there, of weights and of nothing else, is replaced.

    Raises:
      WeightsError: If there is something at `path` and it must not be replaced, or it cannot be written.
    """
    if "\0" in str(path):
        raise WeightsError(f"This cannot be a folder's name.\n  {str(path)!r}\n  Name another one.")
    if os.path.lexists(path):
        _refuse_to_replace(path, overwrite)
    path = path.absolute()
    beside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent))
        yield beside
        beside.chmod(0o777 & ~_umask())
        _put(beside, path)
    except OSError as error:
        raise WeightsError(
            f"The folder cannot be written: {error.strerror or error}.\n  {path}\n"
            "  Is there room on the disk, and may it be written to?"
        ) from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)


def _refuse_to_replace(path: Path, overwrite: bool) -> None:
    if not overwrite:
        raise WeightsError(
            f"There is something already, and nothing is overwritten unasked.\n  {path}\n"
            "  Name another folder, or replace this one with --overwrite."
        )
    if path.is_symlink() or not path.is_dir():
        raise WeightsError(f"This is no folder, so it is not overwritten.\n  {path}\n  Name another one.")
    foreign = sorted(
        entry.name for entry in path.iterdir() if entry.is_dir() or not _WRITTEN.fullmatch(entry.name)
    )
    if foreign:
        raise WeightsError(
            f"The folder holds more than weights, so it is not overwritten: {', '.join(foreign[:5])}.\n"
            f"  {path}\n  Name another one, or remove it yourself."
        )


def _put(beside: Path, path: Path) -> None:
    """Moves the new folder into its place; the old one comes back where that fails."""
    old = beside.with_suffix(".old")
    if path.exists():
        os.rename(path, old)
    try:
        os.rename(beside, path)
    except OSError:
        if old.exists():
            os.rename(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    """The process's mask, which `mkdtemp` does not look at; there is no way to read it but to set it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
