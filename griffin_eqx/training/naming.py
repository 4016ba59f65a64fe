"""Names for the arrays of a training state, by layer index: what checkpoints are keyed by.

How the stack groups equal layers is private to it, so it must not show in a file. Layer 3 is `layers.3`
whether its arrays stand alone or are row 1 of a stacked unit, in the model, in the optimizer's moments (which
are trees like the model) and in the carried cache.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array

from griffin_eqx.model import Stack
from griffin_eqx.training.global_arrays import is_here, on_host, owned, rows_on_host

Arrays = dict[str, np.ndarray]


class _Place(NamedTuple):
    """Where a leaf goes: one name, or one a repeat along `axis`."""

    names: tuple[str, ...]
    axis: int | None


def leaf_names(tree: Any) -> list[tuple[str, ...]]:
    """The names of each array of a tree, in the order of its leaves: one, or one a layer that it holds."""
    return [place.names for place in _places(tree)]


def flatten(tree: Any, *, keep: Callable[[str], bool] = lambda name: True) -> Arrays:
    """Gives every array of a tree a name, stacked layers apart. The arrays are copies on the host.

    Arrays that lie over several processes are gathered, layer by layer, and all of the processes must ask.

    Args:
      tree: A `TrainState`, or a dictionary with a model: anything with one kind of `Stack` in it.
      keep: Which of them this process wants, by name; it takes part in gathering the others.

    Returns:
      Arrays by name, such as `model.layers.3.temporal.into_lru.weight`.
    """
    named: Arrays = {}
    for leaf, place in zip(jax.tree.leaves(_arrays(tree)), _places(tree), strict=True):
        wanted = [keep(name) for name in place.names]
        parts = _parts(leaf, place.axis) if any(wanted) or not is_here(leaf) else [None] * len(wanted)
        for name, part, mine in zip(place.names, parts, wanted, strict=True):
            if mine:
                named[name] = part
    return named


def _parts(leaf: Any, axis: int | None) -> Iterable[Any]:
    """The arrays that a leaf holds, on the host."""
    if not is_here(leaf):
        return [np.array(on_host(leaf))] if axis is None else rows_on_host(leaf, axis)
    # A copy, and no view: the step that comes next is given the buffer to write into.
    host = np.array(leaf)
    return [host] if axis is None else np.moveaxis(host, axis, 0)


def specs(tree: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """The shape and dtype of what `flatten` would give; works on a tree of `jax.ShapeDtypeStruct`s."""
    named = {}
    for leaf, place in zip(jax.tree.leaves(_arrays(tree)), _places(tree), strict=True):
        shape = tuple(size for axis, size in enumerate(leaf.shape) if axis != place.axis)
        named.update(dict.fromkeys(place.names, jax.ShapeDtypeStruct(shape, leaf.dtype)))
    return named


def unflatten(template: Any, named: Mapping[str, np.ndarray]) -> Any:
    """Puts named arrays back into a tree: the inverse of `flatten`.

    Args:
      template: The tree's structure, of arrays or `jax.ShapeDtypeStruct`s.
      named: An array for each name in `specs(template)`.

    Returns:
      The template with NumPy arrays for leaves.
    """
    leaves = [
        named[place.names[0]]
        if place.axis is None
        else np.stack([named[name] for name in place.names], place.axis)
        for place in _places(template)
    ]
    return _with_leaves(template, leaves)


def reader(tree: Any) -> Callable[[str], np.ndarray]:
    """Gives the array behind a name, on the host and one at a time: what `flatten` gives, without the copies."""
    where = {
        name: (leaf, place.axis, row)
        for leaf, place in zip(jax.tree.leaves(_arrays(tree)), _places(tree), strict=True)
        for row, name in enumerate(place.names)
    }

    def read(name: str) -> np.ndarray:
        leaf, axis, row = where[name]
        host = np.asarray(leaf)
        return host if axis is None else np.moveaxis(host, axis, 0)[row]

    return read


def assemble(template: Any, read: Callable[[str], np.ndarray], *, own: bool = True) -> Any:
    """`unflatten` for arrays that are read when their turn comes, one in memory at a time beside the tree.

    Args:
      template: The tree's structure, of arrays or `jax.ShapeDtypeStruct`s.
      read: Gives the array behind each name in `specs(template)`.
      own: Whether arrays are copied. Otherwise, on CPU, those that are aligned to 64 bytes and not part of a stack stay
        where `read` has them.

    Returns:
      The template with JAX arrays for leaves, on the default device.
    """

    def gather(leaf: Any, place: _Place) -> Array:
        if place.axis is None:
            whole = read(place.names[0])
            if not own:
                return jax.device_put(whole)
        else:
            whole = np.empty(leaf.shape, leaf.dtype)
            for row, name in enumerate(place.names):
                np.moveaxis(whole, place.axis, 0)[row] = read(name)
        # Waited for, or the copies to come would keep all that they are made from.
        return jax.block_until_ready(owned(whole))

    pairs = zip(jax.tree.leaves(_arrays(template)), _places(template), strict=True)
    return _with_leaves(template, [gather(leaf, place) for leaf, place in pairs])


def _with_leaves(template: Any, leaves: list[Any]) -> Any:
    arrays, rest = eqx.partition(template, _is_arraylike)
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(arrays), leaves), rest)


def _places(tree: Any) -> list[_Place]:
    """The place of each array, in the order of the leaves."""
    stack = _stack(tree)
    starts = np.cumsum(
        [0, *(len(unit) * repeats for unit, repeats in zip(stack.units, stack.repeats, strict=True))]
    )

    def place(path: tuple[Any, ...]) -> _Place:
        keys = [_text(key) for key in path]
        if keys[0] == "cache":
            # Every row of the batch has caches of its own: rows first, then the repeats.
            prefix, rest, axis = keys[:1], 1, 1
        elif "units" in keys:
            rest = keys.index("units") + 1
            prefix, axis = keys[: rest - 2], 0
        else:
            return _Place((".".join(keys),), None)
        run, member = path[rest].idx, path[rest + 1].idx
        period, repeats = len(stack.units[run]), stack.repeats[run]
        names = tuple(
            ".".join([*prefix, "layers", str(starts[run] + repeat * period + member), *keys[rest + 2 :]])
            for repeat in range(repeats)
        )
        return _Place(names, None if repeats == 1 else axis)

    return [place(path) for path, _ in jax.tree_util.tree_leaves_with_path(_arrays(tree))]


def _stack(tree: Any) -> Stack:
    found = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, Stack))
    return next(node for node in found if isinstance(node, Stack))


def _text(key: Any) -> str:
    """`weight` of `.weight`, `0` of `[0]`, `mu` of `['mu']`."""
    return jax.tree_util.keystr((key,), simple=True)


def _arrays(tree: Any) -> Any:
    return eqx.filter(tree, _is_arraylike)


def _is_arraylike(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, np.ndarray | jax.ShapeDtypeStruct)
