"""The typed registry of temporal-mixing blocks: who offers which name, found without importing anyone.

Blocks come in through two doors: the entry-point group `griffin_eqx.blocks` of any installed distribution,
one line a name, and `add` (or `--plugin FILE`) for a class at hand. No block is special. A plugin is imported
when a pattern first names it, so a broken one breaks nothing but the patterns that use it.

The module is the default registry's face: `registry.add(Block)`, `registry.resolve(pattern)` and so on.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from griffin_eqx._offers import Entry as Entry
from griffin_eqx._offers import Offers
from griffin_eqx._options import check_dataclass, check_option, fields_of
from griffin_eqx.errors import ConfigError, OptionError
from griffin_eqx.errors import RegistryError as RegistryError
from griffin_eqx.pattern import LayerSpec, Pattern, PatternError, Value, fold_name

if TYPE_CHECKING:
    from griffin_eqx.block import AbstractBlock

GROUP = "griffin_eqx.blocks"
MLP_CHOICES = ("gated", "none")
"""Values of `mlp`, the residual block's own option, which every block takes."""


@dataclasses.dataclass(frozen=True)
class LayerPlan:
    """A layer of a pattern, checked and ready to be built."""

    block: "type[AbstractBlock]"
    options: Any
    mlp: Literal["gated", "none"]


class Registry(Offers["type[AbstractBlock]"]):
    """Names and the blocks behind them."""

    noun = "block"
    door = "registry.add"

    def __init__(self, group: str = GROUP):
        super().__init__(group)

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
        fields = option_fields(block)
        try:
            checked = {key: check_option(fields, key, value) for key, value in given.items()}
            mlp: Any = checked.pop("mlp", "gated")
            return LayerPlan(block, block.Options(**checked), mlp)
        except OptionError as error:
            if error.field in spans or error.field not in given:
                where = spans.get(error.field, spec.span)
                raise PatternError(f"{spec.name}: {error}", text, *where) from None
            raise ConfigError(f"[model.blocks.{spec.name}] {error}") from None

    def _base(self) -> type:
        from griffin_eqx.block import AbstractBlock

        return AbstractBlock

    def _check(self, found: Any, origin: str) -> None:
        if not (isinstance(found, type) and issubclass(found, self._base())):
            raise RegistryError(
                f"{found!r}{origin} is no temporal-mixing block.\nSubclass griffin_eqx.AbstractBlock."
            )
        block: Any = found
        missing = [field for field in ("name", "Options", "cache_growth") if not hasattr(block, field)]
        missing += sorted(getattr(block, "__abstractmethods__", ()))
        if missing:
            raise RegistryError(
                f"{block.__name__}{origin} lacks {', '.join(missing)}.\nSee `griffin new block --help`."
            )
        check_dataclass(block, origin)
        if "mlp" in {field.name for field in dataclasses.fields(block.Options)}:
            raise RegistryError(
                f"{block.__name__}.Options{origin} has an option mlp, which is the residual block's own."
            )
        from griffin_eqx.laws import LAWS

        if unknown := sorted(set(block.not_applicable) - set(LAWS)):
            raise RegistryError(
                f"{block.__name__}.not_applicable{origin} names no law: {', '.join(unknown)}.\n"
                f"Laws are {', '.join(LAWS)}."
            )


def option_fields(block: "type[AbstractBlock]") -> dict[str, tuple[Any, Any]]:
    """The options a block takes: name to (type, default), the residual block's own `mlp` included."""
    return fields_of(block.Options) | {"mlp": (Literal["gated", "none"], "gated")}


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
