"""A session on disk: one typed file in the safetensors format, for one model."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from griffin_eqx.errors import CheckpointError, WeightsError
from griffin_eqx.interop.tensor_file import TensorFile, TensorSpec, raw_bytes, write
from griffin_eqx.model import LanguageModel
from griffin_eqx.sampling.session import Session, empty_state

FORMAT, VERSION = "griffin_eqx.session", 1


def model_digest(model: LanguageModel) -> str:
    """SHA-256 of all that decides what a model computes: its structure, its options, every weight."""
    arrays, static = eqx.partition(model, eqx.is_array)
    digest = hashlib.sha256(str(jax.tree.structure(static)).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype}{list(array.shape)}".encode())
        digest.update(raw_bytes(array))
    return digest.hexdigest()


def save(session: Session, path: str | Path, digest: str) -> None:
    """Writes a session; a file that is there is replaced at once when the new one is whole.

    Args:
      session: What to keep.
      path: Where to.
      digest: Of the model whose session it is.

    Raises:
      CheckpointError: If it cannot be written.
    """
    path = Path(path)
    arrays = _named(session)
    specs = {name: TensorSpec(array.shape, array.dtype) for name, array in arrays.items()}
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "model": digest,
        "max_seq_len": str(session.max_seq_len),
        "rows": str(len(session)),
        "digest": _contents(arrays, digest, session.max_seq_len),
    }
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(beside, specs, arrays.__getitem__, metadata)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise CheckpointError(f"The session cannot be saved.\n  {path}: {error.strerror}") from error


def load(path: str | Path, model: LanguageModel, digest: str) -> Session:
    """Reads a session back, for the model that it was saved from.

    Args:
      path: Where it is.
      model: Laid out as when it was saved.
      digest: Of that model.

    Raises:
      CheckpointError: If it is no session, is damaged, of a later version, or of another model.
    """
    path = Path(path)
    try:
        file = TensorFile(path)
    except WeightsError as error:
        raise CheckpointError(f"The session cannot be read.\n{error}") from error
    said = file.metadata
    if said.get("format") != FORMAT:
        raise CheckpointError(f"This is no session.\n  {path}\n  Give a file that a session was saved to.")
    if said.get("version") != str(VERSION):
        raise CheckpointError(
            f"The session is of version {said.get('version')!r}; this program reads {VERSION}.\n  {path}\n"
            "  Read it with the version that wrote it."
        )
    if said.get("model") != digest:
        raise CheckpointError(
            f"The session is of another model: pattern, an option or a weight differs.\n  {path}\n"
            "  Give the model that it was saved from."
        )
    sizes = [said.get("rows", ""), said.get("max_seq_len", "")]
    if not all(size.isascii() and size.isdigit() and len(size) < 12 for size in sizes):
        raise _damaged(path, "its sizes are no numbers")
    rows, max_seq_len = map(int, sizes)
    if rows != sum(name.startswith("tokens.") for name in file.specs):
        raise _damaged(path, f"it says {rows} rows, and holds another number of texts")
    template = eqx.filter_eval_shape(empty_state, model, rows, max_seq_len)
    leaves, structure = jax.tree.flatten(template)
    wanted = {f"state.{i}": TensorSpec(z.shape, np.dtype(z.dtype)) for i, z in enumerate(leaves)}
    texts = [f"tokens.{i}" for i in range(rows)]
    found = {name: spec for name, spec in file.specs.items() if name not in texts}
    if found != wanted:
        different = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        raise _damaged(path, f"{different[0]} is {found.get(different[0])}, not {wanted.get(different[0])}")
    arrays = {name: file.read(name) for name in (*wanted, *texts) if name in file.specs}
    if said.get("digest") != _contents(arrays, digest, max_seq_len):
        raise _damaged(path, "its contents differ from their fingerprint")
    state = jax.tree.unflatten(structure, [jnp.asarray(arrays[name]) for name in wanted])
    return Session(state, tuple(arrays[name] for name in texts), max_seq_len)


def _named(session: Session) -> dict[str, np.ndarray]:
    leaves: list[Any] = jax.device_get(jax.tree.leaves(session.state))
    state = {f"state.{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
    return state | {f"tokens.{i}": row for i, row in enumerate(session.tokens)}


def _contents(arrays: dict[str, np.ndarray], model: str, max_seq_len: int) -> str:
    """Of every tensor with its name, and of what is said beside them."""
    shapes = [[name, str(array.dtype), list(array.shape)] for name, array in sorted(arrays.items())]
    digest = hashlib.sha256(json.dumps([FORMAT, VERSION, model, max_seq_len, shapes]).encode())
    for _, array in sorted(arrays.items()):
        digest.update(raw_bytes(array))
    return digest.hexdigest()


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"The session is damaged: {reason}.\n  {path}\n  Read the prompt again, or take another copy."
    )
