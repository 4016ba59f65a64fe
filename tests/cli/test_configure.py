"""A name, a file or a pattern, and dotted overrides on top, in that order."""

import inspect
import re

import msgspec
import pytest

from griffin_eqx import presets
from griffin_eqx.cli.configure import ModelSwitches, configure, read_value
from griffin_eqx.config import Config, dumps, loads

pytestmark = pytest.mark.core


def config_of(*argv: str) -> Config:
    return configure(list(argv), ModelSwitches, prog="griffin test")[0]


def test_nothing_is_the_default_preset():
    config = config_of()
    assert config == msgspec.structs.replace(
        presets.preset("griffin-shakespeare"),
        model=msgspec.structs.replace(
            presets.preset("griffin-shakespeare").model, pattern="rg_lru*2 local_mqa"
        ),
    )


def test_a_preset_wins_and_its_case_does_not_matter():
    assert config_of("Hawk-7B").model.width == 4096


def test_a_pattern_stands_in_the_default_preset_with_its_canonical_names():
    config = config_of("R*2 L[window-size=64]")
    assert config.model.pattern == "rg_lru*2 local_mqa[window_size=64]"
    assert config.model.width == presets.preset("griffin-tiny").model.width


def test_a_file_is_taken_by_its_path(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[model]\npattern = "R@3"\nwidth = 96\n[model.blocks.R]\ngate_blocks = 2\n')
    config = config_of(str(path), "--model.width", "64")
    assert config.model.pattern == "rg_lru*3"
    assert config.model.width == 64
    assert config.model.blocks == {"rg_lru": {"gate_blocks": 2}}


def test_overrides_go_on_top():
    config = config_of(
        "griffin-100m",
        "--model.num-heads=3",
        "--optimizer.learning_rate",
        "1e-3",
        "--data.corpus",
        "pysource",
        "--data.carry",
        "--model.blocks.L.window-size=64",
        "--model.blocks.local_mqa.rope",
        "false",
        "--model.blocks.rg_lru.decay_init",
        "recurrentgemma",
    )
    assert (config.model.num_heads, config.optimizer.learning_rate) == (3, 1e-3)
    assert (config.data.corpus, config.data.carry) == ("pysource", True)
    assert config.model.blocks == {
        "local_mqa": {"window_size": 64, "rope": False},
        "rg_lru": {"decay_init": "recurrentgemma"},
    }
    assert config.model.width == 768


def test_an_override_keeps_the_blocks_other_options():
    assert config_of("--model.blocks.L.window_size", "64").model.blocks["local_mqa"] == {
        "window_size": 64,
        "head_dim": 32,
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("3.0", 3.0), ("1e3", 1e3), ("True", True), ("gated", "gated"), ("nan", "nan")],
)
def test_a_blocks_option_is_read_as_in_a_pattern(text, value):
    assert read_value(text) == value
    assert type(read_value(text)) is type(value)


def test_a_function_gives_a_configuration(tmp_path, monkeypatch):
    (tmp_path / "my_recipes.py").write_text(
        "from griffin_eqx import preset\n\n\ndef small():\n    return preset('hawk-tiny')\n"
    )
    monkeypatch.chdir(tmp_path)
    assert config_of("--config", "my_recipes:small").model.pattern == "rg_lru*3"


def test_a_printed_configuration_given_back_is_the_same(griffin, tmp_path):
    code, out, _ = griffin("info", "R*3", "--model.blocks.R.c", "4.0", "--train.steps", "7", "--print-config")
    assert code == 0
    (tmp_path / "printed.toml").write_text(out)
    assert griffin("info", "printed.toml", "--print-config").out == out
    assert dumps(loads(out)) == out


def sections() -> list[str]:
    return [field.name for field in msgspec.structs.fields(Config)]


def plain(text: str) -> str:
    """The text without frames, line breaks and code marks."""
    return re.sub(r"\s+", " ", re.sub("[│╭╮╰╯─]", " ", text)).replace("- ", "-")


@pytest.mark.parametrize("section", sections())
def test_every_field_is_an_option_with_its_documentation(griffin, monkeypatch, section):
    monkeypatch.setenv("COLUMNS", "100")
    shown = plain(griffin("info", "--help").out)
    struct = type(getattr(Config(), section))
    documented = inspect.cleandoc(struct.__doc__ or "").partition("Attributes:")[2]
    for field in msgspec.structs.fields(struct):
        assert f"--{section}.{field.name.replace('_', '-')} " in shown.replace(",", " ")
        text = re.search(rf"^  {field.name}: (.*?)(?=^  \w+: |\Z)", documented, re.S | re.M)
        assert text, field.name
        assert plain(text[1]).strip() in shown, field.name
