"""Files of named tensors in the safetensors format, one tensor in memory at a time. Imports no JAX.

    8 bytes   N, the length of the header, little-endian
    N bytes   JSON: {name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}, "__metadata__" of strings
    the rest  the tensors, one behind the other with no gap

The `safetensors` package writes a file from all of its tensors at once, and reads through a memory map whose pages
count as the process's own; so a model would need twice its memory, but for one that is never written to and may stay
in its map. The format is small enough to be read and written here, and the tests hold both to that package. The header
is checked whole before a tensor is read: what comes from elsewhere ends in one `WeightsError` with file and tensor in
it.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from griffin_eqx.errors import WeightsError

DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
}
"""The format's names of dtypes; those that are left out are no weights of ours."""

NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
"""The way back."""

_LONGEST_HEADER = 100_000_000
"""Bytes; the limit of the `safetensors` package, too."""

_CURE = "Copy it again: the file is damaged, or no safetensors file at all."


class TensorSpec(NamedTuple):
    """Shape and dtype of a tensor, known before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


class TensorFile:
    """A safetensors file, its header read and checked.

    Attributes:
      path: Where it is.
      specs: Shape and dtype of every tensor, in the order of the file.
      metadata: What the writer said about them.

    Args:
      path: Where it is.

    Raises:
      WeightsError: If it cannot be read, or the header is damaged or does not fit the file's length.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                length = int.from_bytes(file.read(8), "little")
                if size < 8 or length > min(size - 8, _LONGEST_HEADER):
                    raise WeightsError(f"The file ends before its header does.\n  {path}\n  {_CURE}")
                header = file.read(length)
        except OSError as error:
            raise WeightsError(
                f"A file of weights cannot be read.\n  {path}: {error.strerror}\n  "
                "Is the folder whole, and may you read it?"
            ) from error
        self._begin = 8 + length
        entries = _parse(header, path)
        self.metadata: dict[str, str] = entries.pop("__metadata__", {})
        if not isinstance(self.metadata, dict) or not all(isinstance(v, str) for v in self.metadata.values()):
            raise _damaged(path, "__metadata__", "it is no table of strings")
        self.specs: dict[str, TensorSpec] = {}
        self._offsets: dict[str, int] = {}
        spans = []
        for name, entry in entries.items():
            self.specs[name], span = _entry(path, name, entry)
            self._offsets[name] = span[0]
            spans.append((*span, name))
        end = 0
        for start, stop, name in sorted(spans):
            if start != end:
                raise _damaged(path, name, f"it begins at byte {start} where {end} is due")
            end = stop
        if self._begin + end != size:
            last = max(spans, default=(0, 0, "no tensor"))[2]
            raise _damaged(
                path, last, f"the tensors end at byte {self._begin + end} and the file has {size} bytes"
            )

    def read(self, name: str) -> np.ndarray:
        """Reads one tensor into memory of its own.

        Raises:
          WeightsError: If the file has changed since it was opened.
        """
        spec = self.specs[name]
        raw = np.empty(spec.nbytes, np.uint8)
        try:
            with open(self.path, "rb", buffering=0) as file:
                file.seek(self._begin + self._offsets[name])
                view, done = raw.data, 0
                while done < len(raw) and (count := file.readinto(view[done : done + 2**30])):
                    done += count
        except OSError as error:
            raise _damaged(self.path, name, f"{error.strerror}") from error
        if done < len(raw):
            raise _damaged(self.path, name, "the file was cut off while it was read")
        return raw.view(spec.dtype).reshape(spec.shape)

    def map(self, name: str) -> np.ndarray:
        """One tensor as it lies in the file: read-only, read when it is looked at, in memory that can be taken back.

        The file must stay as it is for as long as the array is used.

        Raises:
          WeightsError: If the file has changed since it was opened.
        """
        spec, start = self.specs[name], self._begin + self._offsets[name]
        if spec.nbytes == 0:
            return np.empty(spec.shape, spec.dtype)
        try:
            whole = np.memmap(self.path, spec.dtype, "r", start, spec.shape)
        except (OSError, ValueError) as error:
            raise _damaged(self.path, name, f"it cannot be mapped: {error}") from error
        return whole.view(np.ndarray)

    def digest(self, name: str) -> str:
        """SHA-256 (hex) of a tensor's bytes, without having them in memory at once."""
        left, found = self.specs[name].nbytes, hashlib.sha256()
        with open(self.path, "rb") as file:
            file.seek(self._begin + self._offsets[name])
            while left > 0 and (chunk := file.read(min(left, 2**20))):
                found.update(chunk)
                left -= len(chunk)
        return found.hexdigest()


def write(
    path: Path,
    specs: Mapping[str, TensorSpec],
    read: Callable[[str], np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a safetensors file, asking for one tensor at a time.

    Args:
      path: Where to; whatever is there is overwritten.
      specs: What comes, in the order of the file.
      read: Gives the tensor behind each name.
      metadata: What is to be said about them.

    Raises:
      ValueError: If a tensor is not what its spec says.
      OSError: If it cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, spec in specs.items():
        header[name] = {
            "dtype": NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [end, end + spec.nbytes],
        }
        end += spec.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (
        -(8 + len(text)) % 64
    )  # so that a map of the file has its tensors where vector units like them
    with open(path, "wb") as file:
        file.write((len(text)).to_bytes(8, "little") + text)
        for name, spec in specs.items():
            array = np.asarray(read(name), order="C")
            if TensorSpec(array.shape, array.dtype) != spec:
                raise ValueError(f"{name} is {array.dtype}{list(array.shape)} where {spec} was announced.")
            file.write(raw_bytes(array))
        file.flush()
        os.fsync(file.fileno())


def raw_bytes(array: np.ndarray) -> memoryview:
    """The bytes of an array as they stand in memory, for files and fingerprints."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _parse(header: bytes, path: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(table := dict(pairs)) < len(pairs):
            raise ValueError("a name comes twice")
        return table

    try:
        entries = json.loads(header, object_pairs_hook=unique)
        if not isinstance(entries, dict):
            raise ValueError("it is no table")
    except (ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0][:100]
        raise WeightsError(f"The file's header cannot be read: {reason}.\n  {path}\n  {_CURE}") from None
    return entries


def _entry(path: Path, name: str, entry: Any) -> tuple[TensorSpec, tuple[int, int]]:
    """`(spec, (start, stop))` of one tensor of a header."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(path, name, "its entry has not dtype, shape and data_offsets")
    dtype, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise WeightsError(
            f"{name[:100]} has the dtype {str(dtype)[:20]}, which is not read here.\n  {path}\n"
            f"  Dtypes are {', '.join(DTYPES)}."
        )
    if not (_are_sizes(shape) and _are_sizes(span) and len(span) == 2):
        raise _damaged(path, name, "shape and data_offsets are lists of sizes")
    spec = TensorSpec(tuple(shape), np.dtype(DTYPES[dtype]))
    if span[1] - span[0] != spec.nbytes:
        raise _damaged(path, name, f"{spec} does not take the {span[1] - span[0]} bytes that it has")
    return spec, (span[0], span[1])


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 2**63 for size in value)


def _damaged(path: Path, name: str, reason: str) -> WeightsError:
    return WeightsError(f"{name[:100]} is damaged: {reason}.\n  {path}\n  {_CURE}")
