"""Parts of a model that training leaves as they are.

A path names parameters as checkpoints do, and everything below them:

    embedding               the embedding (and with it the output, which is tied to it)
    layers.0-3              the first four layers
    layers.*.temporal       the temporal-mixing block of every layer
    layers.*.*norm          both norms of every layer

A part of a path is a name, in which `*` stands for anything, or a range of layer indices.
"""

import dataclasses
import fnmatch
import itertools
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import equinox as eqx
import jax

from griffin_eqx.config import Config
from griffin_eqx.errors import ConfigError
from griffin_eqx.model import LanguageModel, Stack, template
from griffin_eqx.training import naming

Paths = tuple[str, ...]
_RANGE = re.compile(r"(\d+)-(\d+)")


class Frozen(NamedTuple):
    """What one path freezes.

    Attributes:
      path: The path.
      names: The parameters' names.
      size: How many numbers they hold.
    """

    path: str
    names: tuple[str, ...]
    size: int


def frozen_parts(config: Config) -> tuple[Frozen, ...]:
    """What each path of `train.freeze` freezes; `config.model.vocab_size` is set.

    Raises:
      ConfigError: If a path matches nothing, or nothing is left to train.
    """
    paths = config.train.freeze
    if not paths:
        return ()
    sizes = {name: spec.size for name, spec in naming.specs(template(config)).items()}
    parts = tuple(Frozen(path, names := matched(path, sizes), sum(sizes[n] for n in names)) for path in paths)
    if idle := [part.path for part in parts if not part.names]:
        known = sorted({_shown(name) for name in sizes})
        raise ConfigError(
            f"train.freeze: no parameter is named {', '.join(map(repr, idle))}.\n"
            f"  Parameters are {', '.join(known)}.\n"
            "  A path names one of them or a part that they begin with; layers.0-3 are the first four layers."
        )
    if {name for part in parts for name in part.names} == set(sizes):
        raise ConfigError(
            f"train.freeze={' '.join(paths)} leaves nothing to train.\n  All {len(sizes)} parameters are frozen.\n"
            "  Freeze less, or judge the model as it is with griffin eval."
        )
    return parts


def matched(path: str, names: Iterable[str]) -> tuple[str, ...]:
    """The names that a path means.

    >>> matched("layers.0-1.*norm", ["layers.0.mlp_norm.scale", "layers.2.mlp_norm.scale", "final_norm.scale"])
    ('layers.0.mlp_norm.scale',)
    """
    parts = path.strip().split(".")

    def matches(name: str) -> bool:
        own = name.split(".")
        return len(own) >= len(parts) and all(map(_matches, own, parts))

    return tuple(name for name in names if matches(name))


def _matches(own: str, part: str) -> bool:
    if bounds := _RANGE.fullmatch(part):
        return own.isdigit() and int(bounds[1]) <= int(own) <= int(bounds[2])
    return fnmatch.fnmatchcase(own, part)


def split(model: LanguageModel, paths: Paths) -> tuple[Any, Any]:
    """Parts a model into what is trained and the rest; `eqx.combine` puts them together.

    Args:
      model: The model, its stack cut by `apart`.
      paths: What is frozen.
    """
    parameters, rest = eqx.partition(model, eqx.is_inexact_array)
    if not paths:
        return parameters, rest
    leaves, structure = jax.tree.flatten(parameters)
    still = [all(_flags(names, paths)) for names in naming.leaf_names(parameters)]
    trained = [None if frozen else leaf for leaf, frozen in zip(leaves, still, strict=True)]
    kept = [leaf if frozen else None for leaf, frozen in zip(leaves, still, strict=True)]
    return structure.unflatten(trained), eqx.combine(structure.unflatten(kept), rest)


def apart(model: LanguageModel, paths: Paths) -> LanguageModel:
    """The same model, its stacked layers cut where frozen ones meet others.

    So every array is frozen whole or not at all: what is frozen has no gradient and no moments. Names go by the
    index of the layer, and checkpoints do not see the difference.
    """
    if not paths:
        return model
    arrays = eqx.filter(model, eqx.is_array)
    structure = jax.tree.structure(arrays)
    flags = structure.unflatten([_Flags(_flags(names, paths)) for names in naming.leaf_names(arrays)])
    units, repeats = [], []
    for unit, count, marks in zip(model.stack.units, model.stack.repeats, flags.stack.units, strict=True):
        kinds = list(zip(*(leaf.values for leaf in jax.tree.leaves(marks)), strict=True))
        borders = [0, *(i for i in range(1, count) if kinds[i] != kinds[i - 1]), count]
        for start, stop in itertools.pairwise(borders):
            units.append(unit if stop - start == count else _rows(unit, start, stop))
            repeats.append(stop - start)
    return eqx.tree_at(lambda m: m.stack, model, Stack(tuple(units), tuple(repeats)))


@dataclasses.dataclass(frozen=True)
class _Flags:
    """Whether each of the layers that an array holds is frozen: a leaf of a tree, which a tuple is not."""

    values: tuple[bool, ...]


def _flags(names: tuple[str, ...], paths: Paths) -> tuple[bool, ...]:
    return tuple(any(matched(path, [name]) for path in paths) for name in names)


def _rows(unit: Any, start: int, stop: int) -> Any:
    rows = start if stop - start == 1 else slice(start, stop)
    return jax.tree.map(lambda z: z[rows] if eqx.is_array(z) else z, unit)


def _shown(name: str) -> str:
    """The name with every layer's index as `*`."""
    return re.sub(r"^layers\.\d+\.", "layers.*.", name)
