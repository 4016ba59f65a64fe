"""Plans as TOML. Imports no JAX."""

from pathlib import Path
from typing import Any

import msgspec

from griffin_eqx.ablation.check import check
from griffin_eqx.ablation.configs import placed
from griffin_eqx.ablation.plan import Budget, Match, Plan, TaskPlan, Variant
from griffin_eqx.config import explain, parse_toml, read_text, without_none
from griffin_eqx.errors import ConfigError, PlanError
from griffin_eqx.pattern import nearest

_TABLES: dict[str, type[msgspec.Struct]] = {"variants": Variant, "tasks": TaskPlan}
_SECTIONS: dict[str, type[msgspec.Struct]] = {"budget": Budget, "match": Match}


def load_plan(path: str | Path) -> Plan:
    """Reads a plan and checks all that can be known before models are built.

    Args:
      path: A TOML file. Its name becomes the plan's where the plan has none, and a `base` that is a file is
        looked for beside it.

    Raises:
      PlanError: If it cannot be read or asks for what cannot be; the message names file, table and key.
    """
    path = Path(path)
    try:
        plan = loads(read_text(path), where=str(path))
    except ConfigError as error:
        raise PlanError(str(error)) from None
    if plan.name is None:
        plan = msgspec.structs.replace(plan, name=path.stem)
    if plan.base is not None and plan.base.lower().endswith(".toml"):
        plan = msgspec.structs.replace(plan, base=str(path.parent / plan.base))
    check(plan, where=str(path))
    return plan


def loads(text: str, *, where: str = "plan") -> Plan:
    """Reads TOML into a plan, by its schema alone.

    Raises:
      PlanError: If it is no TOML, or a key, type or value is wrong; the message names each.
    """
    try:
        return from_tree(parse_toml(text, where=where), where=where)
    except ConfigError as error:
        raise PlanError(str(error)) from None


def dumps(plan: Plan) -> str:
    """The plan as TOML, in the order of its schema; what is left out has its default."""
    import tomli_w

    return tomli_w.dumps(_given(plan))


def from_tree(tree: dict[str, Any], *, where: str = "plan") -> Plan:
    """Builds a plan from nested dictionaries, by its schema alone.

    Raises:
      PlanError: As `loads`.
    """
    problems = list(_unknown_keys(tree))
    if not problems:
        # A table at a time: msgspec's path would say `variants[...]`, and not which one.
        rest = dict(tree)
        for table, kind in _TABLES.items():
            if not isinstance(tree.get(table), dict):
                continue
            for name, entry in tree[table].items():
                problems += _conversion(entry, kind, f"{table}.{name}")
            rest[table] = {}
        problems += _conversion(rest, Plan, "")
    if problems:
        raise PlanError(*(f"{where}: {problem}" for problem in problems))
    return msgspec.convert(tree, Plan)


def _conversion(tree: Any, kind: type[msgspec.Struct], place: str) -> list[str]:
    try:
        msgspec.convert(tree, kind)
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        said = explain(str(error))
        return [placed(place, said) if place else said]
    return []


def _unknown_keys(tree: dict[str, Any]) -> list[str]:
    found = _unknown(tree, Plan, "")
    for section, kind in _SECTIONS.items():
        found += _unknown(tree.get(section), kind, f"{section}.")
    for table, kind in _TABLES.items():
        entries = tree.get(table)
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            found += _unknown(entry, kind, f"{table}.{name}.")
            if table == "tasks" and isinstance(entry, dict):
                found += _unknown(entry.get("budget"), Budget, f"{table}.{name}.budget.")
    return found


def _unknown(tree: Any, kind: type[msgspec.Struct], prefix: str) -> list[str]:
    if not isinstance(tree, dict):
        return []
    known = kind.__struct_fields__
    problems = []
    for key in tree:
        if key not in known:
            close = nearest(key, known)
            guess = f"did you mean {close}? " if close else ""
            problems.append(f"{prefix}{key}: there is no such key; {guess}It takes {', '.join(known)}.")
    return problems


def _given(struct: msgspec.Struct) -> dict[str, Any]:
    """What differs from the defaults, structs as dictionaries."""
    tree = {}
    for field in msgspec.structs.fields(type(struct)):
        value = getattr(struct, field.name)
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        if value != default:
            tree[field.name] = _plain(value)
    return tree


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return _given(value)
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in without_none(value).items()}
    return value
