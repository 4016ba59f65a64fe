"""The configuration that a plan means for a variant on a task. Imports no JAX."""

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from griffin_eqx import presets, registry, tasks
from griffin_eqx.ablation.plan import Plan
from griffin_eqx.config import Config, DataConfig, from_tree, load_file
from griffin_eqx.errors import ConfigError, PlanError
from griffin_eqx.pattern import PatternError, fold_name

if TYPE_CHECKING:
    from griffin_eqx.task import AbstractTask


def compose(plan: Plan, task: str, variant: str) -> Config:
    """Lays a plan's overrides over its base: the plan's, then the task's, then the variant's.

    Sizes, steps, seeds and learning rates are not yet what matching, budget and runs make of them; the task is
    as written.

    Raises:
      PlanError: If an override is wrong; the message begins with its place in the plan.
    """
    tree = overridden(base_tree(plan), plan.config, "config")
    of_task, of_variant = plan.tasks[task], plan.variants[variant]
    tree = overridden(tree, of_task.config, f"tasks.{task}.config")
    tree = overridden(tree, of_variant.config, f"variants.{variant}.config")
    if of_variant.pattern is not None:
        tree = overridden(tree, {"model": {"pattern": of_variant.pattern}}, f"variants.{variant}.pattern")
    tree = overridden(tree, {"data": {"task": of_task.task or task}}, f"tasks.{task}.task")
    return from_tree(tree)


def base_config(base: str | None) -> Config:
    """The configuration behind the name of a base; the smallest Griffin for None.

    Raises:
      PlanError: If there is no such preset or file, or the file is no configuration.
    """
    base = base or "griffin-tiny"
    try:
        return load_file(base) if base.lower().endswith(".toml") else presets.preset(base)
    except (ConfigError, PatternError) as error:
        raise PlanError(f"base: {error}") from None


def base_tree(plan: Plan) -> dict[str, Any]:
    """The configuration that all of a plan shares, as nested dictionaries with canonical names of blocks.

    Raises:
      PlanError: If there is no such preset or file, or the file is no configuration.
    """
    tree = msgspec.to_builtins(base_config(plan.base))
    try:
        return _canonical(tree)
    except ConfigError as error:
        raise PlanError(f"base: {error}") from None


@functools.lru_cache(maxsize=16)
def task_of(data: DataConfig) -> "AbstractTask":
    """The task that a configuration names, built.

    Raises:
      PatternError: If there is none of that name, or an option of it is wrong.
      DataError: If its text is missing or too short.
    """
    return tasks.init(data.task, data)


def overridden(tree: Mapping[str, Any], overrides: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Lays overrides over a configuration's tree; names of blocks become canonical.

    Raises:
      PlanError: If the result is no configuration. `place` begins the message.
    """
    try:
        merged = _merged(tree, _canonical(overrides))
        from_tree(merged, where="")
    except PatternError as error:
        raise PlanError(f"{place}: {error}") from None
    except ConfigError as error:
        raise PlanError(placed(place, str(error).removeprefix(": "))) from None
    return merged


def placed(place: str, said: str) -> str:
    """A message under its place: one that begins with a path of its own goes on with it.

    >>> placed("variants.a.config", "model.width: Expected `int`")
    'variants.a.config.model.width: Expected `int`'
    """
    path, colon, _ = said.partition(": ")
    return f"{place}.{said}" if colon and " " not in path else f"{place}: {said}"


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = (
            _merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
        )
    return merged


def _canonical(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The same with canonical names in `model.blocks`, so that two spellings of one block meet.

    Raises:
      ConfigError: If a block is unknown.
    """
    model = tree.get("model")
    blocks = model.get("blocks") if isinstance(model, Mapping) else None
    if not isinstance(blocks, Mapping):
        return dict(tree)
    named: dict[str, Any] = {}
    for name, options in blocks.items():
        try:
            canonical = registry.find(name).name
        except registry.RegistryError as error:
            raise ConfigError(f"model.blocks.{name}: {error}") from None
        folded = (
            {fold_name(key): value for key, value in options.items()}
            if isinstance(options, Mapping)
            else options
        )
        if isinstance(named.get(canonical), dict) and isinstance(folded, dict):
            folded = named[canonical] | folded
        named[canonical] = folded
    return {**tree, "model": {**(model or {}), "blocks": named}}
