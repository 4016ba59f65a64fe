"""Nested dictionaries of arrays on a disk, as Orbax writes them: names are paths, `blocks.0/mlp_block/ffw_up/w`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from griffin_eqx.errors import WeightsError
from griffin_eqx.interop.tensor_file import TensorSpec
from griffin_eqx.training.quiet import quiet_orbax

SEPARATOR = "/"
_TOP = "params"
_DEEPEST = 16


def flatten(tree: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """`(leaves, depth)`: leaves by path, and how many dictionaries of the one key `params` stood around them.

    Raises:
      WeightsError: If it is no nested dictionary with strings for keys.
    """
    depth, inner = 0, tree
    while isinstance(inner, Mapping) and set(inner) == {_TOP}:
        depth, inner = depth + 1, inner[_TOP]
    leaves: dict[str, Any] = {}

    def walk(node: Any, path: tuple[str, ...]) -> None:
        if not isinstance(node, Mapping):
            leaves[SEPARATOR.join(path)] = node
            return
        for key, value in node.items():
            if not isinstance(key, str) or SEPARATOR in key or len(path) > _DEEPEST:
                where = SEPARATOR.join(path) or "the top"
                raise WeightsError(
                    f"The tree has the key {key!r:.60}, which is no parameter's.\n  at {where}\n"
                    "  Parameters are nested dictionaries with words for keys."
                )
            walk(value, (*path, key))

    walk(inner, ())
    return leaves, depth


def nest(leaves: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """The inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, last = path.split(SEPARATOR)
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = leaf
    for _ in range(depth):
        tree = {_TOP: tree}
    return tree


def read(path: Path) -> tuple[dict[str, TensorSpec], Callable[[str], np.ndarray], int]:
    """`(specs, read, depth)` of an Orbax folder; arrays are read when they are asked for, a layer at a time.

    Raises:
      WeightsError: If it is damaged, or no folder of Orbax.
    """
    quiet_orbax()
    path = path.absolute()

    def explained(error: Exception, name: str) -> WeightsError:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        return WeightsError(
            f"{name} cannot be read: {type(error).__name__}: {reason[:200]}.\n  {path}\n"
            "  Copy the folder again: it is damaged, incomplete, or not written by Orbax."
        )

    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            leaves, depth = flatten(reader.metadata(path).item_metadata.tree)
        specs = {name: TensorSpec(tuple(leaf.shape), np.dtype(leaf.dtype)) for name, leaf in leaves.items()}
    except WeightsError:
        raise
    except Exception as error:  # whatever a damaged folder makes the library say
        raise explained(error, "The folder's structure") from error

    held: dict[str, np.ndarray] = {}

    def array(name: str) -> np.ndarray:
        if name not in held:
            held.clear()
            held.update(block(name.partition(SEPARATOR)[0]))
        result = held[name]
        if TensorSpec(result.shape, result.dtype) != specs[name]:
            raise explained(ValueError(f"it is {result.dtype}{list(result.shape)}"), name)
        return result

    def block(top: str) -> dict[str, np.ndarray]:
        """All arrays of one layer: Orbax takes as long for one of them."""
        names = [name for name in specs if name.partition(SEPARATOR)[0] == top]
        arguments = ocp.args.PyTreeRestore(
            item=nest(dict.fromkeys(names, 0), depth),
            restore_args=nest(dict.fromkeys(names, ocp.RestoreArgs(restore_type=np.ndarray)), depth),
            partial_restore=True,
        )
        try:
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
                found, _ = flatten(reader.restore(path, args=arguments))
            return {name: np.asarray(found[name]) for name in names}
        except Exception as error:
            raise explained(error, top) from error

    return specs, array, depth


def write(path: Path, names: Sequence[str], read: Callable[[str], np.ndarray], depth: int) -> None:
    """Writes a folder that Orbax reads; Orbax wants all arrays at once, so they are all in memory meanwhile."""
    quiet_orbax()
    tree = nest({name: np.ascontiguousarray(read(name)) for name in names}, depth)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as writer:
        writer.save(path.absolute(), args=ocp.args.PyTreeSave(tree))
