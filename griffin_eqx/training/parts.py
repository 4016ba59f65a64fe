"""A checkpoint's parts: of several processes each writes its own.

Arrays are divided whole, so that each has one fingerprint and any number of processes can read them. A process writes
its part beside the checkpoints, into `.parts/STEP-INDEX`; the first one waits for all of them and takes them into the
checkpoint before that is complete: one rename then makes it all valid, as for a single process. Orbax writes what is
NumPy's in process 0 only, hence files of NumPy's own.
"""

import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import msgspec
import numpy as np
import orbax.checkpoint as ocp

from griffin_eqx.errors import CheckpointError
from griffin_eqx.training.run_directory import replace_file

STAGED = ".parts"
_ARRAYS, _LEAVES = "arrays.npz", "leaves.json"
_LOOK_AGAIN_SECONDS = 0.05


def owners(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """Which process writes each array: about as many bytes each, and the largest array is the first one's.

    Args:
      sizes: Bytes of every array by name.
      count: Number of processes.

    Returns:
      The index of a process for each name; the same in all processes.
    """
    found, loads = {}, [0] * count
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        owner = loads.index(min(loads))
        found[name] = owner
        loads[owner] += sizes[name]
    return found


def clear(directory: Path) -> None:
    """Removes parts that processes which were killed have left."""
    shutil.rmtree(directory / STAGED, ignore_errors=True)


def stage(
    directory: Path, step: int, index: int, arrays: Mapping[str, np.ndarray], leaves: Mapping[str, Any]
) -> None:
    """Writes a process's part, complete under its name once it is there.

    Args:
      directory: The folder of checkpoints.
      step: Which one this becomes a part of.
      index: Of the process.
      arrays: By name.
      leaves: What the description is to say of each, as JSON.

    Raises:
      OSError: If it cannot be written.
    """
    path = directory / STAGED / f"{step}-{index}"
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.mkdir(parents=True)
    replace_file(unfinished / _LEAVES, msgspec.json.encode(leaves))
    with open(unfinished / _ARRAYS, "wb") as file:
        # Bytes, for NumPy's format knows no bfloat16.
        raw = {name: np.ascontiguousarray(array).reshape(-1).view(np.uint8) for name, array in arrays.items()}
        np.savez(file, **raw)  # pyright: ignore[reportArgumentType]
        file.flush()
        os.fsync(file.fileno())
    os.rename(unfinished, path)


def awaited(directory: Path, step: int, count: int, given_up: threading.Event) -> dict[str, Path]:
    """The parts of the other processes by their index, once all of them are there.

    Raises:
      CheckpointError: If it is given up: another process has ended.
    """
    names = {f"{step}-{index}": str(index) for index in range(1, count)}
    # By listing: over NFS a name that was looked up in vain may stay unknown for a while.
    while not names.keys() <= set(os.listdir(directory / STAGED) if (directory / STAGED).is_dir() else ()):
        if given_up.wait(_LOOK_AGAIN_SECONDS):
            raise CheckpointError(
                f"The save of step {step} was given up: another process has not written its part.\n  {directory}\n"
                "  The same command goes on from the last complete checkpoint."
            )
    return {index: directory / STAGED / name for name, index in names.items()}


def leaves_of(part: Path) -> Any:
    """What a part says of its arrays."""
    return msgspec.json.decode((part / _LEAVES).read_bytes())


def read(part: Path, specs: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, np.ndarray]:
    """Arrays of a part by name.

    Raises:
      Exception: Whatever NumPy and zip files raise where it is damaged.
    """
    with open(part / _ARRAYS, "rb") as content, np.load(content, allow_pickle=False) as file:
        return {name: file[name].view(spec.dtype).reshape(spec.shape) for name, spec in specs.items()}


class TakeIn(ocp.CheckpointHandler):
    """Moves parts into a checkpoint that is being written."""

    def save(self, directory: Any, args: "TakeInArgs") -> None:
        """Moves each into the folder, under its index."""
        for index, part in args.parts.items():
            os.rename(part, os.path.join(directory, index))

    def restore(self, directory: Any, args: Any = None) -> Any:
        """Parts are read one by one."""
        raise NotImplementedError


@ocp.args.register_with_handler(TakeIn, for_save=True, for_restore=True)  # Orbax asks for both
class TakeInArgs(ocp.args.CheckpointArgs):
    """Parts by index."""

    def __init__(self, parts: Mapping[str, Path]):
        self.parts = parts
