"""What a command takes as its model: a name, a file or a pattern, and dotted overrides on top of it."""

import dataclasses
import importlib
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import tyro

from griffin_eqx import presets, registry, tasks
from griffin_eqx.cli import asks_help
from griffin_eqx.cli.arguments import Flag, Text, parse
from griffin_eqx.config import Config, dumps, from_tree, load_file
from griffin_eqx.errors import ConfigError
from griffin_eqx.pattern import PatternError, Value, fold_name, nearest

BLOCKS = "--model.blocks."
"""Blocks are open-ended, so `--model.blocks.NAME.KEY VALUE` is read here and not by the parser."""

Options = dict[str, dict[str, Value]]


@dataclasses.dataclass(frozen=True)
class ModelSwitches:
    """What every command with a model takes. A command adds its own switches in a subclass.

    Attributes:
      source: The model: a preset's name, else a TOML file (*.toml), else a layer pattern, which replaces that
        of the default preset.
      config: A Python function that returns the Config, as `package.module:function`. This runs that module.
      print_config: Print the resolved configuration as TOML, which can be given back as MODEL, and stop.
      tree: The configuration that the overrides below apply to.
    """

    source: Annotated[
        str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[MODEL]", help_behavior_hint="")
    ] = None
    config: Text = None
    print_config: Flag = False
    tree: Annotated[Config, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Config)


Chosen = TypeVar("Chosen", bound=ModelSwitches)


def configure(argv: list[str], switches: type[Chosen], *, prog: str) -> tuple[Config, Chosen]:
    """Reads a command's arguments.

    `MODEL` comes first, `--model.blocks.NAME.KEY VALUE` and the other dotted overrides go on top of it.
    Names of blocks and task are canonical in the answer.

    Args:
      argv: The arguments behind the verb.
      switches: The command's switches.
      prog: The command as a user types it.

    Returns:
      `(config, switches)`.

    Raises:
      ConfigError: If the configuration is wrong; the message names the key.
      PatternError: If the pattern is.
      SystemExit: With 2 for a misspelt option; with 0 after `--help` or `--print-config`.
    """
    help_wanted = asks_help(argv)
    argv, given = take_blocks([argument for argument in argv if argument not in ("-h", "--help")])
    # Twice: only the first reading tells which defaults the second has.
    first = _read(argv, switches, Config(), prog)
    config = _load(first)
    base, blocks = without_blocks(config)
    if help_wanted:
        _read([*argv, "--help"], switches, base, prog)
    chosen = _read(argv, switches, base, prog)
    config = _checked(chosen.tree, _merged(_canonical(blocks), _canonical(given)))
    if chosen.print_config:
        sys.stdout.write(dumps(config))
        raise SystemExit(0)
    return config, dataclasses.replace(chosen, tree=config)


def load_source(source: str | None) -> Config:
    """The configuration behind a preset's name, a TOML file or a pattern; the default preset for None.

    Raises:
      ConfigError: If a file cannot be read.
      PatternError: If it is none of the three.
    """
    if source is None:
        return presets.preset(presets.DEFAULT)
    if source.lower() in presets.names():
        return presets.preset(source)
    if source.lower().endswith(".toml"):
        return load_file(source)
    try:
        return presets.with_pattern(str(registry.resolve(source)))
    except PatternError as error:
        if close := nearest(source, presets.names()):
            raise ConfigError(f"{error}\nOr did you mean the preset {close}?") from None
        if Path(source).exists():
            raise ConfigError(f"{source}: a configuration is a file whose name ends in .toml.") from None
        raise


def model_of(folder: str) -> Config:
    """The default preset with the model, precision and tokenizer of a run or of a folder of weights.

    Raises:
      RunError: If the folder is neither.
      ConfigError: If its configuration cannot be read.
    """
    from griffin_eqx.training import run_directory as layout

    path = layout.find(folder)
    theirs, usual = load_file(path / layout.CONFIG), presets.preset(presets.DEFAULT)
    data = msgspec.structs.replace(usual.data, tokenizer=theirs.data.tokenizer)
    train = msgspec.structs.replace(usual.train, precision=theirs.train.precision)
    data = layout.with_kept_tokenizer(data, path)
    return msgspec.structs.replace(usual, model=theirs.model, data=data, train=train)


def call(target: str) -> Config:
    """The configuration that a Python function returns.

    Args:
      target: `package.module:function`.

    Raises:
      ConfigError: If there is no such function, or it fails, or returns something else.
    """
    module, colon, name = target.partition(":")
    if not (module and colon and name):
        raise ConfigError(f"--config {target}: write package.module:function.")
    sys.path.append(str(Path.cwd()))  # as `python -m` does, but behind everything installed
    try:
        config = getattr(importlib.import_module(module), name)()
    except Exception as error:
        raise ConfigError(
            f"--config {target}: running it failed.\n{type(error).__name__}: {error}"
        ) from error
    if not isinstance(config, Config):
        raise ConfigError(
            f"--config {target}: it returned a {type(config).__name__}, not a griffin_eqx.Config."
        )
    return config


def _load(switches: ModelSwitches) -> Config:
    if switches.config is None:
        if switches.source is None and switches.tree.train.init_from is not None:
            return model_of(switches.tree.train.init_from)
        return load_source(switches.source)
    if switches.source is not None:
        raise ConfigError(
            f"both MODEL ({switches.source}) and --config {switches.config} are given.\nKeep one."
        )
    return call(switches.config)


def _read(argv: list[str], switches: type[Chosen], tree: Config, prog: str) -> Chosen:
    return parse(switches, argv, prog=prog, default=switches(tree=tree), registry=type_registry())


def type_registry() -> tyro.constructors.ConstructorRegistry:
    """Shows `model.blocks`, which tyro could only read as one flat list, by how it is really written."""
    known = tyro.constructors.ConstructorRegistry()

    @known.primitive_rule
    def _(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
        if info.type != Options:
            return None

        def refuse(words: list[str]) -> Options:
            raise ValueError("write --model.blocks.NAME.KEY VALUE")

        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="[.NAME.KEY VALUE]",
            instance_from_str=refuse,
            is_instance=lambda value: isinstance(value, dict),
            str_from_instance=lambda value: ["none"],
        )

    return known


def without_blocks(config: Config) -> tuple[Config, Options]:
    """The configuration without the options of its blocks, and those."""
    model = msgspec.structs.replace(config.model, blocks={})
    return msgspec.structs.replace(config, model=model), config.model.blocks


def take_blocks(argv: list[str]) -> tuple[list[str], Options]:
    """The arguments without `--model.blocks.NAME.KEY VALUE`, and those options by block."""
    rest: list[str] = []
    blocks: Options = {}
    arguments = iter(argv)
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if not option.startswith(BLOCKS):
            rest.append(argument)
            continue
        name, dot, key = option.removeprefix(BLOCKS).partition(".")
        if not (name and dot and key):
            raise ConfigError(f"{option}: write --model.blocks.NAME.KEY VALUE.")
        if not equals:
            value = next(arguments, "")
        if not value or value.startswith("--"):
            raise ConfigError(f"{option} needs a value.")
        blocks.setdefault(name, {})[fold_name(key)] = read_value(value)
    return rest, blocks


def read_value(text: str) -> Value:
    """An option's value as a pattern would read it: integer, float, true, false, or a word."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if math.isfinite(value):
            return value
    return text


def _canonical(blocks: Mapping[str, Mapping[str, Value]]) -> Options:
    """The same options under the blocks' canonical names."""
    folded: Options = {}
    for name, options in blocks.items():
        try:
            canonical = registry.find(name).name
        except registry.RegistryError as error:
            raise ConfigError(f"model.blocks.{name}: {error}") from None
        folded.setdefault(canonical, {}).update(options)
    return folded


def _merged(defaults: Options, given: Options) -> Options:
    return {name: defaults.get(name, {}) | given.get(name, {}) for name in (*defaults, *given)}


def _checked(config: Config, blocks: Options) -> Config:
    """Puts the blocks back, resolves pattern and task and checks every range."""
    pattern = str(registry.resolve(config.model.pattern))
    model = msgspec.structs.replace(config.model, pattern=pattern, blocks=blocks)
    data = msgspec.structs.replace(config.data, task=tasks.resolve(config.data.task))
    tree: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(config, model=model, data=data))
    return from_tree(tree, where="command line")
