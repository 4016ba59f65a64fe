"""The typed registry of temporal-mixing blocks: who offers which name, found without importing anyone.

Blocks come in through two doors: the entry-point group `griffin_eqx.blocks` of any installed distribution,
one line a name, and `add` (or `--plugin FILE`) for a class at hand. No block is special. A plugin is imported
when a pattern first names it, so a broken one breaks nothing but the patterns that use it.

The module is the default registry's face: `registry.add(Block)`, `registry.resolve(pattern)` and so on.
"""

import dataclasses
import functools
import importlib.metadata
import importlib.util
import inspect
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from griffin_eqx.errors import ConfigError, GriffinError, OptionError
from griffin_eqx.pattern import LayerSpec, Pattern, PatternError, Value, fold_name, nearest

if TYPE_CHECKING:
    from griffin_eqx.block import AbstractBlock

GROUP = "griffin_eqx.blocks"
MLP_CHOICES = ("gated", "none")
"""Values of `mlp`, the residual block's own option, which every block takes."""


class RegistryError(GriffinError, ValueError):
    """A block that cannot be registered or loaded."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One block on offer.

    Attributes:
      name: The canonical name: the longest of its names.
      aliases: Its other names, folded.
      distribution: Who offers it, `name version`, or where an added class was defined.
      target: `module:Class`.
    """

    name: str
    aliases: tuple[str, ...]
    distribution: str
    target: str


@dataclasses.dataclass(frozen=True)
class LayerPlan:
    """A layer of a pattern, checked and ready to be built."""

    block: "type[AbstractBlock]"
    options: Any
    mlp: Literal["gated", "none"]


class Registry:
    """Names and the blocks behind them."""

    def __init__(self, group: str = GROUP):
        self._group = group
        self._added: dict[str, type[AbstractBlock]] = {}

    @functools.cached_property
    def _found(self) -> tuple[Entry, ...]:
        """One entry for each object that an installed distribution offers."""
        names: dict[tuple[str, str], set[str]] = {}
        for point in importlib.metadata.entry_points(group=self._group):
            owner = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown distribution"
            names.setdefault((owner, point.value.replace(" ", "")), set()).add(fold_name(point.name))
        return tuple(_entry(offered, owner, target) for (owner, target), offered in sorted(names.items()))

    def entries(self) -> tuple[Entry, ...]:
        """Every block on offer, by name, without importing any."""
        added = {
            id(block): _entry(
                {fold_name(n) for n in (block.name, *block.aliases)}, _where(block), _target(block)
            )
            for block in self._added.values()
        }
        return tuple(sorted((*self._found, *added.values()), key=lambda e: (e.name, e.distribution)))

    def refresh(self) -> None:
        """Looks at the installed distributions again."""
        self.__dict__.pop("_found", None)
        importlib.invalidate_caches()

    def add(self, block: "type[AbstractBlock]") -> "type[AbstractBlock]":
        """Registers a class under its `name` and `aliases`, for this process. Usable as a decorator.

        Adding a class of the same module and name again, as a notebook does, replaces it.

        Raises:
          RegistryError: If it does not keep the contract's form, or a name is taken.
        """
        _check_class(block)
        names = {fold_name(name) for name in (block.name, *block.aliases)}
        kept = {n: b for n, b in self._added.items() if _target(b) != _target(block)}
        for entry in self._found:
            if taken := names & {entry.name, *entry.aliases}:
                raise _clash(taken.pop(), [entry.distribution, _where(block)])
        if taken := names & kept.keys():
            name = taken.pop()
            raise _clash(name, [_where(kept[name]), _where(block)])
        self._added = kept | dict.fromkeys(names, block)
        return block

    def add_file(self, path: str | Path) -> "list[type[AbstractBlock]]":
        """Runs a Python file and registers every concrete block defined in it.

        Raises:
          RegistryError: If the file is missing, fails to run, or defines no block.
        """
        from griffin_eqx.block import AbstractBlock

        path = Path(path)
        if not path.is_file():
            raise RegistryError(f"--plugin {path}: there is no such file.")
        name = f"griffin_plugin_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise RegistryError(f"--plugin {path}: not a Python file; its name must end in .py.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise RegistryError(
                f"--plugin {path}: running it failed.\n{type(error).__name__}: {error}"
            ) from error
        blocks = [
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, AbstractBlock)
            and value.__module__ == name
            and not inspect.isabstract(value)
            and hasattr(value, "name")
        ]
        if not blocks:
            raise RegistryError(
                f"--plugin {path}: it defines no concrete block.\n"
                "A block is a subclass of griffin_eqx.AbstractBlock with a name and every method of the contract."
            )
        for block in blocks:
            self.add(block)
        return blocks

    def is_added(self, entry: Entry) -> bool:
        """Whether the block was added in this process, by `add` or from a file."""
        return entry.name in self._added

    def find(self, name: str) -> Entry:
        """The entry behind a name or alias.

        Raises:
          RegistryError: If nobody offers it, with the nearest name, or two distributions do.
        """
        folded = fold_name(name)
        offers = [entry for entry in self.entries() if folded in (entry.name, *entry.aliases)]
        if len(offers) > 1:
            raise _clash(folded, [entry.distribution for entry in offers])
        if offers:
            return offers[0]
        raise RegistryError(f"there is no block named {name!r}.\n{self._advice(folded)}")

    def load(self, name: str) -> "type[AbstractBlock]":
        """The class behind a name or alias, imported now.

        Raises:
          RegistryError: As `find`; also if importing it fails or it is no block.
        """
        entry = self.find(name)
        if entry.name in self._added:
            return self._added[entry.name]
        module, _, attribute = entry.target.partition(":")
        try:
            block: Any = functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
        except Exception as error:
            raise RegistryError(
                f"block {entry.name!r} of {entry.distribution} cannot be imported from {entry.target}.\n"
                f"{type(error).__name__}: {error}\nMend or uninstall that distribution; other blocks work."
            ) from error
        _check_class(block, entry)
        return block

    def resolve(self, pattern: Pattern | str) -> Pattern:
        """The pattern with canonical names in place of aliases; imports nothing.

        Raises:
          PatternError: If a name is unknown or offered twice, with a caret under it.
        """
        pattern = Pattern.parse(pattern) if isinstance(pattern, str) else pattern

        def canonical(spec: LayerSpec) -> LayerSpec:
            try:
                return dataclasses.replace(spec, name=self.find(spec.name).name)
            except RegistryError as error:
                message, _, hint = str(error).partition("\n")
                raise PatternError(message, pattern.text, *spec.span, hint or None) from None

        return pattern.map(canonical)

    def plan(
        self, pattern: Pattern | str, defaults: Mapping[str, Mapping[str, Value]] | None = None
    ) -> tuple[LayerPlan, ...]:
        """Every layer of a pattern with its block imported and its options checked.

        Args:
          pattern: The pattern; aliases are resolved.
          defaults: Options by block name, as in the config's `[model.blocks.NAME]`. The pattern's own win over
            them, and they over the class's.

        Raises:
          PatternError: If a name or option of the pattern is wrong.
          ConfigError: If one of the defaults is.
        """
        resolved = self.resolve(pattern)
        by_name = self._fold_defaults(defaults or {})
        plans: dict[LayerSpec, LayerPlan] = {}
        for spec in dict.fromkeys(resolved.layers):
            plans[spec] = self._plan_layer(spec, resolved.text, by_name.get(spec.name, {}))
        return tuple(plans[spec] for spec in resolved.layers)

    def _fold_defaults(self, defaults: Mapping[str, Mapping[str, Value]]) -> dict[str, Mapping[str, Value]]:
        folded: dict[str, Mapping[str, Value]] = {}
        for name, options in defaults.items():
            try:
                folded[self.find(name).name] = options
            except RegistryError as error:
                raise ConfigError(f"[model.blocks.{name}]: {error}") from None
        return folded

    def _plan_layer(self, spec: LayerSpec, text: str, defaults: Mapping[str, Value]) -> LayerPlan:
        spans = dict(spec.option_spans)
        try:
            block = self.load(spec.name)
        except RegistryError as error:
            message, _, hint = str(error).partition("\n")
            raise PatternError(message, text, *spec.span, hint or None) from error
        given = {fold_name(key): value for key, value in defaults.items()} | dict(spec.options)
        try:
            checked = {key: _check_option(block, key, value) for key, value in given.items()}
            mlp: Any = checked.pop("mlp", "gated")
            return LayerPlan(block, block.Options(**checked), mlp)
        except OptionError as error:
            if error.field in spans or error.field not in given:
                where = spans.get(error.field, spec.span)
                raise PatternError(f"{spec.name}: {error}", text, *where) from None
            raise ConfigError(f"[model.blocks.{spec.name}] {error}") from None

    def _advice(self, folded: str) -> str:
        known = sorted({name for entry in self.entries() for name in (entry.name, *entry.aliases)})
        if not known:
            return "No block is installed: griffin_eqx itself must be installed (pip install -e .)."
        close = nearest(folded, known)
        guess = f"Did you mean {close!r}? " if close else ""
        return f"{guess}Known: {', '.join(known)}. After installing a plugin or editing entry points, re-install it."


def option_fields(block: "type[AbstractBlock]") -> dict[str, tuple[Any, Any]]:
    """The options a block takes: name to (type, default), the residual block's own `mlp` included."""
    hints = typing.get_type_hints(block.Options)
    fields = {field.name: (hints[field.name], field.default) for field in dataclasses.fields(block.Options)}
    return fields | {"mlp": (Literal["gated", "none"], "gated")}


def _check_option(block: "type[AbstractBlock]", key: str, value: Value) -> Value:
    """The value, an integer widened where a float is wanted.

    Raises:
      OptionError: If the block has no such option or the value is of another type.
    """
    fields = option_fields(block)
    if key not in fields:
        close = nearest(key, fields)
        guess = f"did you mean {close}? " if close else ""
        raise OptionError(key, f"there is no such option; {guess}it takes {', '.join(sorted(fields))}")
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


def _check_class(block: Any, entry: Entry | None = None) -> None:
    from griffin_eqx.block import AbstractBlock

    origin = f" ({entry.target} of {entry.distribution})" if entry else ""
    if not (isinstance(block, type) and issubclass(block, AbstractBlock)):
        raise RegistryError(
            f"{block!r}{origin} is no temporal-mixing block.\nSubclass griffin_eqx.AbstractBlock."
        )
    missing = [field for field in ("name", "Options", "cache_growth") if not hasattr(block, field)]
    missing += sorted(getattr(block, "__abstractmethods__", ()))
    if missing:
        raise RegistryError(
            f"{block.__name__}{origin} lacks {', '.join(missing)}.\nSee `griffin new block --help`."
        )
    if not dataclasses.is_dataclass(block.Options):
        raise RegistryError(
            f"{block.__name__}.Options{origin} is no dataclass.\nUse @dataclasses.dataclass(frozen=True)."
        )
    if "mlp" in {field.name for field in dataclasses.fields(block.Options)}:
        raise RegistryError(
            f"{block.__name__}.Options{origin} has an option mlp, which is the residual block's own."
        )
    for field in dataclasses.fields(block.Options):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise RegistryError(
                f"{block.__name__}.Options.{field.name}{origin} has no default.\nGive it one."
            )
    from griffin_eqx.laws import LAWS

    if unknown := sorted(set(block.not_applicable) - set(LAWS)):
        raise RegistryError(
            f"{block.__name__}.not_applicable{origin} names no law: {', '.join(unknown)}.\nLaws are {', '.join(LAWS)}."
        )


def _entry(names: set[str], distribution: str, target: str) -> Entry:
    ordered = sorted(names, key=lambda name: (-len(name), name))
    return Entry(ordered[0], tuple(ordered[1:]), distribution, target)


def _target(block: type) -> str:
    return f"{block.__module__}:{block.__qualname__}"


def _where(block: type) -> str:
    return f"registry.add of {_target(block)}"


def _clash(name: str, owners: list[str]) -> RegistryError:
    return RegistryError(
        f"the block name {name!r} is offered by {' and by '.join(owners)}.\nUninstall one, or rename it: none wins."
    )


default = Registry()
add = default.add
add_file = default.add_file
entries = default.entries
find = default.find
is_added = default.is_added
load = default.load
plan = default.plan
resolve = default.resolve
refresh = default.refresh
