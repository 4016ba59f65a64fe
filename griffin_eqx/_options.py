"""The options of a block or task: a plain dataclass, whose names and types are checked here."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from griffin_eqx.errors import OptionError, RegistryError
from griffin_eqx.pattern import Value, nearest

Fields = Mapping[str, tuple[Any, Any]]
"""By name: type and default."""


def fields_of(options: type) -> dict[str, tuple[Any, Any]]:
    """The fields of an options dataclass: name to (type, default)."""
    hints = typing.get_type_hints(options)
    return {field.name: (hints[field.name], field.default) for field in dataclasses.fields(options)}


def check_dataclass(owner: Any, origin: str) -> None:
    """Refuses a class whose `Options` is no dataclass of defaults.

    Raises:
      RegistryError: Naming the class; `origin` says whose it is.
    """
    if not dataclasses.is_dataclass(owner.Options):
        raise RegistryError(
            f"{owner.__name__}.Options{origin} is no dataclass.\nUse @dataclasses.dataclass(frozen=True)."
        )
    for field in dataclasses.fields(owner.Options):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise RegistryError(
                f"{owner.__name__}.Options.{field.name}{origin} has no default.\nGive it one."
            )


def check_option(fields: Fields, key: str, value: Value) -> Value:
    """The value, an integer widened where a float is wanted.

    Raises:
      OptionError: If there is no such option or the value is of another type.
    """
    if key not in fields:
        close = nearest(key, fields)
        guess = f"did you mean {close}? " if close else ""
        takes = f"it takes {', '.join(sorted(fields))}" if fields else "it takes none"
        raise OptionError(key, f"there is no such option; {guess}{takes}")
    hint, _ = fields[key]
    accepted = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for kind in accepted:
        if typing.get_origin(kind) is Literal:
            choices = typing.get_args(kind)
            if any(value == choice and type(value) is type(choice) for choice in choices):
                return value
        elif kind is float and type(value) is int:
            return float(value)
        elif type(value) is kind:
            return value
    wanted = " or ".join(_describe(kind) for kind in accepted if kind is not types.NoneType)
    raise OptionError(key, f"expected {wanted}, got {value!r}")


def _describe(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(kind))
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a word"}
    return names.get(kind, str(kind))
