"""Checkpoints: Orbax writes them, atomically and beside the training; fingerprints tell damage.

A checkpoint is a folder named by its step, of three items: `model`, `progress` (all else of the training
state) and `description`, a JSON object that says what the other two must hold. Orbax has no check of content:
a flipped bit comes back as a wrong weight. So the description has the SHA-256 of every array, and of itself.
Where several processes train, a fourth item, `parts`, has what all but the first one write (`parts.py`).
"""

import hashlib
import math
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import msgspec
import numpy as np
import orbax.checkpoint as ocp

from griffin_eqx.config import Config, ModelConfig
from griffin_eqx.errors import CheckpointError
from griffin_eqx.processes import ALONE, Group
from griffin_eqx.training import parts
from griffin_eqx.training.differences import differences
from griffin_eqx.training.global_arrays import owned
from griffin_eqx.training.naming import Arrays, flatten, specs, unflatten
from griffin_eqx.training.quiet import quiet_orbax
from griffin_eqx.training.step import TrainState

FORMAT = 3
"""Version of the layout described above. A newer program reads older ones.

1: `standing` has the best and last bits a byte, whatever the task; digest over the fields in their order.
2: `standing` has the best and last value of the task's metric; digest over the fields by name.
3: several processes write a part each, and `parts` says who has what.
"""

MODEL, PROGRESS, PARTS, DESCRIPTION = "model", "progress", "parts", "description"


class Leaf(msgspec.Struct, frozen=True):
    """What an array must be."""

    shape: tuple[int, ...]
    dtype: str
    sha256: str


class Standing(msgspec.Struct, frozen=True):
    """How far a run has come, apart from its arrays.

    Attributes:
      skipped: Updates skipped so far because loss or gradient were not finite.
      best_step: The step of the best evaluation.
      best: Its value of the task's metric, on the validation split.
      last: That of the last evaluation; None where it was not finite, too.
    """

    skipped: int = 0
    best_step: int | None = None
    best: float | None = None
    last: float | None = None


class Description(msgspec.Struct, frozen=True):
    """What a checkpoint says of itself.

    Attributes:
      format: Version of the layout.
      step: Batches seen.
      model: The model's configuration, its pattern resolved.
      standing: How far the run had come.
      leaves: Every array by name.
      parts: Of the arrays that are in a part, which one.
      digest: SHA-256 of all of the above as JSON.
    """

    format: int
    step: int
    model: ModelConfig
    standing: Standing
    leaves: dict[str, Leaf]
    parts: dict[str, int] = {}
    digest: str = ""

    def signed(self) -> "Description":
        """The same with its digest."""
        return msgspec.structs.replace(self, digest=_digest(msgspec.to_builtins(self)))


def _digest(tree: dict[str, Any]) -> str:
    """Of the JSON as it stands in the file, so that a field which a later program adds changes nothing."""
    return hashlib.sha256(msgspec.json.encode(tree | {"digest": ""}, order="sorted")).hexdigest()


class _Standing1(msgspec.Struct, frozen=True):
    """`Standing` in format 1."""

    skipped: int = 0
    best_step: int | None = None
    best_bits_per_byte: float | None = None
    last_bits_per_byte: float | None = None


class _Description1(msgspec.Struct, frozen=True):
    """`Description` in format 1."""

    format: int
    step: int
    model: ModelConfig
    standing: _Standing1
    leaves: dict[str, Leaf]
    digest: str = ""

    def is_whole(self) -> bool:
        unsigned = msgspec.structs.replace(self, digest="")
        json = msgspec.json.encode(unsigned, order="deterministic")
        return self.digest == hashlib.sha256(json).hexdigest()

    def renewed(self) -> Description:
        """The same in today's format."""
        old = self.standing
        standing = Standing(old.skipped, old.best_step, old.best_bits_per_byte, old.last_bits_per_byte)
        return Description(FORMAT, self.step, self.model, standing, self.leaves, {}).signed()


def _described(tree: dict[str, Any]) -> Description:
    """Reads a description of any format so far; raises what is no `CheckpointError` where it is damaged."""
    if tree["format"] == 1:
        old = msgspec.convert(tree, _Description1)
        whole, description = old.is_whole(), old.renewed()
    else:
        whole, description = tree["digest"] == _digest(tree), msgspec.convert(tree, Description)
    if not whole:
        raise ValueError("it differs from its fingerprint")
    return description


class Checkpoints:
    """Writes the checkpoints of a run, and keeps the newest ones and, unless the run does without, the best.

    Saving goes on in the background; leaving the `with` block waits for it. Of several processes each writes some of
    the arrays, whole ones that it gathers from all, and the first one makes a checkpoint of the parts.

    Args:
      directory: Where they are; it exists.
      keep: How many of the newest stay, beside the best.
      group: The processes, all of which save together.
    """

    def __init__(self, directory: Path, *, keep: int, group: Group = ALONE):
        quiet_orbax()
        self.directory = directory
        self._group = group
        self._keep = keep
        self._best: int | None = None
        self._saving: int | None = None
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self,
            # Folders that a killed process left half-written: only those with Orbax's mark in their name.
            cleanup_tmp_directories=True,
            create=False,
            # A thread of ours saves in the background. Orbax's own background threads wait five minutes for
            # one another when one of them fails, also at the end of the process.
            enable_async_checkpointing=False,
            multiprocessing_options=_only_this_process(),
        )
        self._given_up = threading.Event()
        self._manager = None
        if group.is_first:
            parts.clear(directory)
            with _explained("The folder of checkpoints cannot be used.", directory):
                self._manager = ocp.CheckpointManager(directory.absolute(), options=options)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._written: Future[None] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: Any) -> None:
        if exception[0] is not None and self._group.is_several:
            self._given_up.set()  # nobody may be left to write what the thread waits for
        self._writer.shutdown()
        if self._manager is not None:
            self._manager.close()
        if exception[0] is None:  # an error on its way out is the one to be told
            self.wait()

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Tells Orbax which steps stay; a folder that was not made here always does."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        ours = [step for step in steps if step == self._saving or _is_ours(self.directory / str(step))]
        stay = {*sorted(ours)[-self._keep :], self._best}
        return [step in stay or step not in ours for step in steps]

    def save(self, state: TrainState, config: Config, standing: Standing) -> None:
        """Starts to save, once the save before is done; does nothing where this step is saved already.

        Raises:
          CheckpointError: If this save or the one before failed.
        """
        step, group = int(state.step), self._group
        self.wait()
        if not group.told(group.is_first and step not in steps(self.directory)):
            return
        owner = _owners(state, group.count)
        named = flatten(state, keep=lambda name: owner[name] == group.index)
        if group.is_first:
            self._best = standing.best_step if config.train.keep_best else None
            self._saving = step
            self._written = self._writer.submit(self._write, step, named, owner, config, standing)
        else:
            self._written = self._writer.submit(self._stage, step, named)

    def _stage(self, step: int, named: Arrays) -> None:
        with _explained(_UNWRITTEN, self.directory / str(step), hint=_ROOM):
            leaves = msgspec.to_builtins(_leaves(named))
            parts.stage(self.directory, step, self._group.index, named, leaves)

    def _write(
        self, step: int, named: Arrays, owner: dict[str, int], config: Config, standing: Standing
    ) -> None:
        leaves = _leaves(named)
        items: dict[str, Any] = {item: ocp.args.PyTreeSave(arrays) for item, arrays in _items(named).items()}
        assert self._manager is not None
        with _explained(_UNWRITTEN, self.directory / str(step), hint=_ROOM):
            if self._group.is_several:
                there = parts.awaited(self.directory, step, self._group.count, self._given_up)
                for part in there.values():
                    leaves |= msgspec.convert(parts.leaves_of(part), dict[str, Leaf])
                items[PARTS] = parts.TakeInArgs(there)
            elsewhere = {name: index for name, index in owner.items() if index}
            description = Description(FORMAT, step, config.model, standing, leaves, elsewhere).signed()
            items[DESCRIPTION] = ocp.args.JsonSave(msgspec.to_builtins(description))
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def check(self) -> None:
        """Raises what went wrong in the background so far.

        Raises:
          CheckpointError: If a save failed.
        """
        if self._written is not None and self._written.done():
            self.wait()

    def wait(self) -> None:
        """Waits until all is written.

        Raises:
          CheckpointError: If a save failed.
        """
        if self._written is not None:
            self._written.result()


def steps(directory: Path) -> list[int]:
    """The steps that have a checkpoint, ascending."""
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if re.fullmatch(r"0|[1-9]\d*", path.name))


def describe(directory: Path, step: int) -> Description:
    """Reads what a checkpoint says of itself; no arrays.

    Raises:
      CheckpointError: If it is missing, damaged, or written by a newer program.
    """
    where = directory / str(step)
    if not where.is_dir():
        there = ", ".join(map(str, steps(directory))) or "none"
        raise CheckpointError(f"There is no checkpoint of step {step}.\n  {where}\n  There are: {there}.")
    with _explained(_DAMAGED, where / DESCRIPTION, hint=_CURE):
        path = (where / DESCRIPTION).absolute()
        alone = _only_this_process()
        handler = ocp.JsonCheckpointHandler(multiprocessing_options=alone)
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
            tree = reader.restore(path)
        version = tree["format"]
        if isinstance(version, int) and version > FORMAT:
            raise CheckpointError(
                f"The checkpoint was written by a newer griffin_eqx, in format {version}.\n  {where}\n"
                f"  This one reads formats up to {FORMAT}: update griffin_eqx."
            )
        description = _described(tree)
        if description.step != step:
            raise ValueError(f"it is of step {description.step}")
    return description


def restore(directory: Path, step: int, template: Any, model: ModelConfig) -> Any:
    """`read` onto the default device."""
    return owned(read(directory, step, template, model))


def read(directory: Path, step: int, template: Any, model: ModelConfig) -> Any:
    """Reads a training state, or a part of it, and checks every array.

    Args:
      directory: The run's `checkpoints` folder.
      step: Which one.
      template: A `TrainState` of `jax.ShapeDtypeStruct`s, or `{"model": model}` for the weights alone.
      model: The configuration that the template was made from.

    Returns:
      The template with NumPy arrays.

    Raises:
      CheckpointError: If the checkpoint is missing, damaged, or of another model.
    """
    where = directory / str(step)
    description = describe(directory, step)
    if changed := differences(description.model, model, prefix="model."):
        raise CheckpointError(_of_another_model(where, changed))
    wanted = specs(template)
    items = {_item(name) for name in wanted}
    leaves = {name: leaf for name, leaf in description.leaves.items() if _item(name) in items}
    if changed := _mismatch(leaves, wanted):
        raise CheckpointError(_of_another_model(where, changed))
    named = {name: np.empty(spec.shape, spec.dtype) for name, spec in wanted.items() if 0 in spec.shape}

    def place(name: str) -> Path:
        index = description.parts.get(name, 0)
        return where / PARTS / str(index) if index else where / _item(name)

    places: dict[Path, list[str]] = {}
    for name in wanted.keys() - named.keys():
        places.setdefault(place(name), []).append(name)
    for folder, names in sorted(places.items()):
        with _explained(_DAMAGED, folder, hint=_CURE):
            if folder.parent.name == PARTS:
                named |= parts.read(folder, {name: wanted[name] for name in names})
            else:
                named |= _read(folder, names)
    found = _leaves(named)
    for name, leaf in leaves.items():
        if found.get(name) != leaf:
            raise CheckpointError(
                f"The checkpoint is damaged: {name} differs from its fingerprint.\n  {place(name)}\n  {_CURE}"
            )
    return unflatten(template, named)


_UNWRITTEN = "A checkpoint could not be written, so the run stops."
_ROOM = "Is there room on the disk, and may it be written to? The checkpoints before it are whole."
_DAMAGED = "The checkpoint is damaged or incomplete."
_CURE = "Copy it again, or delete that step's folder to go on from the checkpoint before it."


@contextmanager
def _explained(
    what: str, where: Path, *, hint: str = "Is it a folder, and may it be written to?"
) -> Iterator[None]:
    """Turns whatever a library raises over files into a `CheckpointError` that names the place."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise CheckpointError(
            f"{what}\n  {where}: {type(error).__name__}: {reason[:200]}\n  {hint}"
        ) from error


def _of_another_model(where: Path, changed: list[str]) -> str:
    shown = changed[:8] + ([f"and {len(changed) - 8} more"] if len(changed) > 8 else [])
    lines = "\n  ".join(shown)
    hint = "Give that configuration, or another run directory."
    return f"The checkpoint is of another model.\n  {where}\n  {lines}\n  {hint}"


def _mismatch(leaves: dict[str, Leaf], wanted: dict[str, jax.ShapeDtypeStruct]) -> list[str]:
    there = {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in leaves.items()}
    asked = {name: f"{spec.dtype}{list(spec.shape)}" for name, spec in wanted.items()}
    return [
        f"{name}: {there.get(name, 'nothing')} there, {asked.get(name, 'nothing')} asked for"
        for name in sorted({*there, *asked})
        if there.get(name) != asked.get(name)
    ]


def _read(path: Path, names: list[str]) -> Arrays:
    quiet_orbax()
    arguments = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
    alone = _only_this_process()
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
        return reader.restore(path.absolute(), args=ocp.args.PyTreeRestore(restore_args=arguments))


def _only_this_process() -> Any:
    """Orbax waits for no other process: who reads and who writes is settled here."""
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}"
    )


def _owners(state: TrainState, count: int) -> dict[str, int]:
    """Which process writes each array; the first one has some of every item."""
    sizes = {name: math.prod(spec.shape) * spec.dtype.itemsize for name, spec in specs(state).items()}
    found: dict[str, int] = {}
    for item in (MODEL, PROGRESS):
        found |= parts.owners({name: size for name, size in sizes.items() if _item(name) == item}, count)
    return found


def _items(named: Arrays) -> dict[str, Arrays]:
    """Arrays by item, but for empty ones: Orbax refuses them, and there is nothing in them to lose."""
    full = {name: array for name, array in named.items() if array.size}
    return {
        item: {name: array for name, array in full.items() if _item(name) == item}
        for item in (MODEL, PROGRESS)
    }


def _leaves(named: Arrays) -> dict[str, Leaf]:
    def leaf(array: np.ndarray) -> Leaf:
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return Leaf(tuple(array.shape), str(array.dtype), hashlib.sha256(data.data).hexdigest())

    with ThreadPoolExecutor() as pool:  # hashlib lets other threads run
        return dict(zip(named, pool.map(leaf, named.values()), strict=True))


def _item(name: str) -> str:
    return MODEL if name.startswith(f"{MODEL}.") else PROGRESS


def _is_ours(folder: Path) -> bool:
    return not folder.is_symlink() and (folder / DESCRIPTION).is_dir() and (folder / MODEL).is_dir()
