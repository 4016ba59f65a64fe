"""What a plan may not ask for: found at once, before a model is built or a run starts. Imports no JAX itself."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from griffin_eqx import registry
from griffin_eqx.ablation.configs import base_tree, compose, overridden, task_of
from griffin_eqx.ablation.naming import lr_folder
from griffin_eqx.ablation.plan import Budget, Plan
from griffin_eqx.errors import GriffinError, PlanError
from griffin_eqx.pattern import nearest

_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+@-]{0,99}")

_OWN = {
    "data.task": "write it as `task` in the task's table",
    "train.seed": "the plan's `seeds` set it",
    "train.init_seed": "write `init_seed` in the variant's table",
    "train.final_test": "a run of an ablation is always tested",
    "train.keep_best": "a run of an ablation is judged by its last weights",
}
"""What a plan sets itself, and so no override may."""


def check(plan: Plan, *, where: str) -> None:
    """Checks a plan: names, budgets, seeds, overrides, patterns, blocks, options and tasks.

    Args:
      plan: The plan.
      where: What messages call it, such as its file.

    Raises:
      PlanError: With every problem that was found.
    """
    problems = [*_form(plan)]
    if not problems:
        problems += _contents(plan)
    if problems:
        raise PlanError(*(f"{where}: {problem}" for problem in dict.fromkeys(problems)))


def _form(plan: Plan) -> Iterator[str]:
    if plan.name is not None and not _FOLDER.fullmatch(plan.name):
        yield f"name: {plan.name!r} {_NO_FOLDER}"
    for table in ("variants", "tasks"):
        names = tuple(getattr(plan, table))
        if not names:
            yield f"{table}: there is none.\nName at least one, as [{table}.NAME]."
        yield from (f"{table}.{name}: {name!r} {_NO_FOLDER}" for name in names if not _FOLDER.fullmatch(name))
        for name in _twice(name.lower() for name in names):
            yield f"{table}.{name}: two are called so but for upper and lower case, and would share a folder."
    if plan.baseline is not None and plan.baseline not in plan.variants:
        close = nearest(plan.baseline, plan.variants)
        guess = f"Did you mean {close}? " if close else ""
        yield f"baseline: there is no variant {plan.baseline!r}.\n{guess}Variants: {', '.join(plan.variants)}."
    if isinstance(plan.seeds, list):
        yield from (f"seeds: {seed} is there twice." for seed in _twice(plan.seeds))
        if not plan.seeds:
            yield "seeds: there is none.\nWrite how many, such as 3, or which, such as [0, 1, 2]."
    elif plan.seeds < 1:
        yield f"seeds: {plan.seeds} is none.\nWrite how many, such as 3, or which, such as [0, 1, 2]."
    yield from _budget(plan.budget, "budget")
    yield from _rates(plan.learning_rates, "learning_rates")
    for name, task in plan.tasks.items():
        if task.budget is not None:
            yield from _budget(task.budget, f"tasks.{name}.budget")
        yield from _rates(task.learning_rates or (), f"tasks.{name}.learning_rates")
    for place, overrides in _overrides(plan):
        keys = _dotted(overrides)
        yield from (f"{place}: {key} cannot be overridden: {_OWN[key]}." for key in keys if key in _OWN)
        yield from (
            f"{place}: {key} cannot be None in a plan, which is TOML.\nTake a base that leaves it out."
            for key, value in keys.items()
            if value is None
        )
    for name, variant in plan.variants.items():
        if variant.pattern is not None and "model.pattern" in _dotted(variant.config):
            yield f"variants.{name}: both pattern and config.model.pattern are given.\nKeep one."
    yield from _contradictions(plan)


_NO_FOLDER = (
    "cannot be a folder's name.\n"
    "Use up to 100 letters, digits and _ . = + @ -, the first of them a letter, a digit or _."
)


def _budget(budget: Budget, place: str) -> Iterator[str]:
    given = {name: value for name in budget.__struct_fields__ if (value := getattr(budget, name)) is not None}
    if len(given) > 1:
        yield f"{place}: both {' and '.join(given)} are given.\nKeep one: a run has one length."
    yield from (
        f"{place}.{name}: {value} is no budget." for name, value in given.items() if not math.isfinite(value)
    )


def _rates(rates: Iterable[float], place: str) -> Iterator[str]:
    rates = tuple(rates)
    yield from (
        f"{place}: {rate} is no learning rate.\nUse numbers above 0."
        for rate in rates
        if not (math.isfinite(rate) and rate > 0)
    )
    for folder in _twice(map(lr_folder, rates)):
        yield f"{place}: two are {folder.removeprefix('lr')} to six digits, and would share a folder."


def _overrides(plan: Plan) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "config", plan.config
    for table in ("tasks", "variants"):
        for name, entry in getattr(plan, table).items():
            yield f"{table}.{name}.config", entry.config


def _contradictions(plan: Plan) -> Iterator[str]:
    """Overrides that a budget or a grid of learning rates would silently undo."""
    budgets = [plan.budget if task.budget is None else task.budget for task in plan.tasks.values()]
    grids = [
        plan.learning_rates if t.learning_rates is None else t.learning_rates for t in plan.tasks.values()
    ]
    for place, overrides in _overrides(plan):
        keys = _dotted(overrides)
        if "train.steps" in keys and all(budget != Budget() for budget in budgets):
            yield f"{place}: train.steps and a budget are given.\nKeep one: a run has one length."
        if "optimizer.learning_rate" in keys and all(grids):
            yield f"{place}: optimizer.learning_rate and learning_rates are given.\nKeep one of them."


def _contents(plan: Plan) -> list[str]:
    """Overrides, patterns, blocks, options and tasks; what is wrong for all is told once."""
    problems: list[str] = []
    try:
        overridden(base_tree(plan), plan.config, "config")
    except PlanError as error:
        return list(error.problems)
    for task in plan.tasks:
        for variant in plan.variants:
            try:
                config = compose(plan, task, variant)
            except PlanError as error:
                problems += error.problems
                continue
            try:
                registry.plan(config.model.pattern, config.model.blocks)
            except GriffinError as error:
                own = plan.variants[variant].pattern is not None
                problems.append(f"variants.{variant}{'.pattern' if own else ''}: {error}")
            try:
                task_of(config.data)
            except GriffinError as error:
                problems.append(f"tasks.{task}{'.task' if plan.tasks[task].task else ''}: {error}")
    return problems


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """What a nested dictionary says, by dotted key."""
    keys: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        keys |= _dotted(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return keys


def _twice(values: Iterable[Any]) -> list[Any]:
    return [value for value, count in Counter(values).items() if count > 1]
