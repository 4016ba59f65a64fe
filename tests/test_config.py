"""Configurations survive being written and read; whatever is none is refused with its place."""

import inspect
import math
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin_eqx import presets, registry
from griffin_eqx.config import Config, ModelConfig, dumps, from_tree, load_file, loads
from griffin_eqx.errors import ConfigError
from griffin_eqx.pattern import PatternError

pytestmark = pytest.mark.core

MANY = settings(settings.get_profile("fuzz"))
PATTERNS = ["rg_lru", "(rg_lru rg_lru local_mqa)@6", "R*2 L[window_size=512]", "rg_lru[c=4.5,mlp=none]"]


def values_of(kind: msgspec.inspect.Type, name: str = "") -> st.SearchStrategy[Any]:
    """Every value that a field of this type takes."""
    if name == "pattern":
        return st.sampled_from(PATTERNS)
    match kind:
        case msgspec.inspect.StructType(cls=cls, fields=fields):
            return st.builds(cls, **{field.name: values_of(field.type, field.name) for field in fields})
        case msgspec.inspect.UnionType(types=types):
            return st.one_of(*map(values_of, types))
        case msgspec.inspect.LiteralType(values=values):
            return st.sampled_from(sorted(values))
        case msgspec.inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(values_of(key), values_of(value), max_size=2)
        case msgspec.inspect.VarTupleType(item_type=item):
            return st.lists(values_of(item), max_size=3).map(tuple)
        case msgspec.inspect.IntType(ge=low, le=high):
            return st.integers(low, 2**63 - 1 if high is None else high)
        case msgspec.inspect.FloatType(ge=low, gt=above, le=high, lt=below):
            return st.floats(
                low if above is None else above,
                high if below is None else below,
                exclude_min=above is not None,
                exclude_max=below is not None,
                allow_nan=False,
            )
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.StrType():
            return st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
        case msgspec.inspect.NoneType():
            return st.none()
        case _:
            raise NotImplementedError(f"no strategy for {kind}")


configs = values_of(msgspec.inspect.type_info(Config))


@MANY
@given(configs)
def test_a_configuration_survives_being_written_and_read(config):
    assert loads(dumps(config)) == config
    assert loads(dumps(config)).digest == config.digest


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_survives_too_and_its_pattern_and_options_are_good(name):
    config = presets.preset(name)
    assert loads(dumps(config)) == config
    registry.plan(config.model.pattern, config.model.blocks)


def test_presets_are_told_apart_by_their_digest():
    assert len({presets.preset(name).digest for name in presets.names()}) == len(presets.names())


def test_a_digest_outlives_keys_that_came_later():
    # Runs are found by it: what a version before `data.tokenizer` and `optimizer.name` called this configuration.
    assert Config().digest == "b6c444ea"
    for later in ({"data": {"tokenizer": "file:t.json"}}, {"optimizer": {"name": "muon"}}):
        assert from_tree(later).digest != Config().digest


def test_an_unknown_preset_is_refused_with_the_nearest():
    with pytest.raises(ConfigError) as caught:
        presets.preset("grifin-7b")
    assert str(caught.value).startswith("there is no preset 'grifin-7b'.\nDid you mean griffin-7b? Presets: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model]\nwidht = 3", "config: model: Object contains unknown field `widht`"),
        ("[modle]\nwidth = 3", "config: Object contains unknown field `modle`"),
        ("[model]\nwidth = '3'", "config: model.width: Expected `int`, got `str`"),
        ("[model]\nwidth = 0", "config: model.width: Expected `int` >= 1"),
        ("[train]\nremat = 'some'", "config: train.remat: Invalid enum value 'some'"),
        ("[model.blocks.rg_lru]\nc = [1]", "config: model.blocks[...][...]: Expected"),
        ("[model", "config is not TOML.\n"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_path(text, message):
    with pytest.raises(ConfigError) as caught:
        loads(text)
    assert str(caught.value).startswith(message)


def test_a_wrong_pattern_in_a_file_is_pointed_at():
    with pytest.raises(PatternError, match=r"\^"):
        loads('[model]\npattern = "rg_lru*"')


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        load_file(tmp_path / "none.toml")


# Fuzz


def refused_or_read(read, source) -> None:
    try:
        config = read(source)
    except (ConfigError, PatternError):
        return
    assert isinstance(config, Config)


TEXT = dumps(presets.preset("griffin-tiny"))
SCRAPS = [
    "[",
    "]",
    '"',
    "=",
    "\n",
    "\0",
    "1e999",
    "-1",
    "nan",
    "99999999999999999999",
    "a.b.c",
    "[[",
    "'''",
    "é",
]


@st.composite
def damaged(draw) -> str:
    text = TEXT
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from([0, 0, 1, 3, 40])))
        scrap = draw(st.one_of(st.sampled_from(SCRAPS), st.text(max_size=5)))
        text = text[:start] + scrap + text[end:]
    return text


@MANY
@given(damaged())
def test_a_damaged_file_is_read_or_refused(text):
    refused_or_read(loads, text)


trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["model", "train", "blocks", "pattern", "width", "seed", "rg_lru", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@MANY
@given(st.dictionaries(st.sampled_from(["model", "data", "optimizer", "train", "x"]), trees, max_size=3))
def test_a_tree_of_anything_is_read_or_refused(tree):
    refused_or_read(from_tree, tree)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "config.toml"


@MANY
@given(content=st.binary(max_size=40))
def test_a_file_of_any_bytes_is_read_or_refused(file, content):
    file.write_bytes(content)
    refused_or_read(load_file, file)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "x = " + "[" * 100_000,
        "x = " + "{a=" * 50_000,
        "a." * 50_000 + "a = 1",
        "x = {" + "'' . " * 20_000 + "a = 1}",
        "a" * 100_000,
        '"' * 100_001,
        "x = 1" + "0" * 100_000,
    ],
    ids=lambda text: text[:12],
)
def test_a_file_made_to_be_slow_is_refused_at_once(text):
    start = time.process_time()
    with pytest.raises(ConfigError):
        loads(text)
    assert time.process_time() - start < 1


# Words


def sections() -> list[type[msgspec.Struct]]:
    return [type(getattr(Config(), field.name)) for field in msgspec.structs.fields(Config)]


@pytest.mark.parametrize("section", sections())
def test_every_field_is_documented(section):
    documented = inspect.cleandoc(section.__doc__ or "").partition("Attributes:")[2]
    for field in msgspec.structs.fields(section):
        assert f"\n  {field.name}: " in documented, field.name


def test_widths_that_are_left_out_follow_the_width():
    model = ModelConfig(width=768)
    assert (model.resolved_lru_width, model.resolved_mlp_width) == (1024, 2304)
    assert math.isclose(model.resolved_lru_width / model.width, 4 / 3)
