"""The registry finds blocks by name, says what is wrong with a name, and lets no plugin harm another."""

import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import griffin_eqx as gx
from griffin_eqx import registry
from griffin_eqx.config import ModelConfig
from griffin_eqx.errors import ConfigError
from griffin_eqx.model import LanguageModel
from griffin_eqx.verify import law_tests

pytestmark = pytest.mark.core

DISTRIBUTIONS = Path(__file__).parent / "distributions"
BUILT_IN = ["cg_lru", "global_mqa", "local_mqa", "rg_lru"]


@pytest.fixture
def install(monkeypatch):
    """Puts distributions on the path, as pip would, for one test."""

    def put(*names: str) -> registry.Registry:
        for name in names:
            monkeypatch.syspath_prepend(str(DISTRIBUTIONS / name))
        registry.refresh()
        return registry.Registry()

    yield put
    monkeypatch.undo()
    registry.refresh()
    for module in [name for name in sys.modules if name.split(".")[0] in ("acme_blocks", "broken_blocks")]:
        del sys.modules[module]


@pytest.fixture
def added():
    """Forgets what a test adds to the default registry."""
    before = registry.default._added
    yield registry.default
    registry.default._added = before


def error_of(call, *args) -> str:
    with pytest.raises((gx.GriffinError, gx.PatternError)) as caught:
        call(*args)
    return str(caught.value)


def small_model(pattern: str, **blocks) -> LanguageModel:
    config = ModelConfig(
        pattern=pattern,
        width=16,
        lru_width=16,
        vocab_size=11,
        blocks={"rg_lru": {"gate_blocks": 2}, "local_mqa": {"head_dim": 8, "window_size": 4}, **blocks},
    )
    return jax.jit(lambda: LanguageModel.init(config, key=jax.random.key(0)))()


# Finding


def test_the_built_in_blocks_come_through_the_entry_points():
    entries = registry.Registry().entries()
    assert [entry.name for entry in entries] == BUILT_IN
    assert {entry.distribution.split()[0] for entry in entries} == {"griffin_eqx"}
    assert [entry.aliases for entry in entries] == [("c",), ("g",), ("l",), ("r",)]


@pytest.mark.parametrize("spelling", ["rg_lru", "RG-LRU", "R", "r", "Rg_Lru"])
def test_case_hyphens_and_aliases_do_not_matter(spelling):
    assert registry.find(spelling).name == "rg_lru"
    assert str(registry.resolve(spelling)) == "rg_lru"


def test_a_block_gives_the_names_that_its_entry_points_have():
    for entry in registry.Registry().entries():
        block = registry.load(entry.name)
        assert {name.lower() for name in (block.name, *block.aliases)} == {entry.name, *entry.aliases}


def test_an_unknown_name_is_pointed_at_and_the_nearest_is_named():
    assert error_of(registry.resolve, "rg_lru*2 lcal_mqa") == (
        "there is no block named 'lcal_mqa'.\n"
        "  rg_lru*2 lcal_mqa\n"
        "           ^^^^^^^^\n"
        "Did you mean 'local_mqa'? Known: c, cg_lru, g, global_mqa, l, local_mqa, r, rg_lru. "
        "After installing a plugin or editing entry points, re-install it."
    )


# Options


@pytest.mark.parametrize(
    ("pattern", "message", "carets"),
    [
        ("R L[windw_size=3]", "windw_size: there is no such option; did you mean window_size?", (4, 16)),
        ("L[window_size=1.5]", "window_size: expected an integer, got 1.5", (2, 17)),
        ("L[window_size=0]", "window_size: counts the token itself and must be at least 1, got 0", (2, 15)),
        ("R[decay_init=mine]", "expected one of paper, recurrentgemma, got 'mine'", (2, 17)),
        ("R[c=true]", "c: expected a number, got True", (2, 8)),
        ("R[mlp=gatd]", "mlp: expected one of gated, none, got 'gatd'", (2, 10)),
    ],
)
def test_a_wrong_option_is_pointed_at(pattern, message, carets):
    text = error_of(registry.plan, pattern)
    assert message in text.splitlines()[0]
    assert text.splitlines()[2] == "  " + " " * carets[0] + "^" * (carets[1] - carets[0])


def test_the_pattern_wins_over_the_config_which_wins_over_the_class():
    first, second, third = registry.plan("L[window_size=3] L R", {"L": {"window_size": 7, "head-dim": 64}})
    assert (first.options.window_size, first.options.head_dim) == (3, 64)
    assert (second.options.window_size, second.options.head_dim, second.options.kv_heads) == (7, 64, 1)
    assert third.options == third.block.Options()


def test_an_integer_serves_where_a_number_is_wanted():
    (plan,) = registry.plan("R[c=4,mlp=none]")
    assert plan.options.c == 4.0
    assert type(plan.options.c) is float
    assert plan.mlp == "none"


@pytest.mark.parametrize(
    ("defaults", "message"),
    [
        ({"nobody": {}}, "[model.blocks.nobody]: there is no block named 'nobody'."),
        ({"L": {"window_size": 0}}, "[model.blocks.local_mqa] window_size: counts the token itself"),
        ({"L": {"window": 3}}, "[model.blocks.local_mqa] window: there is no such option"),
    ],
)
def test_a_wrong_default_names_the_section(defaults, message):
    with pytest.raises(ConfigError) as caught:
        registry.plan("L", defaults)
    assert str(caught.value).startswith(message)


# Plugins of others


def test_a_stranger_is_listed_without_being_imported(install):
    entry = install("good").find("S")
    assert (entry.name, entry.distribution) == ("token_shift", "acme-blocks 0.1")
    assert "acme_blocks.token_shift" not in sys.modules


def test_a_strangers_block_trains_in_a_hybrid_by_its_name(install):
    install("good")
    model = small_model("(S local_mqa)@4 token_shift[mix=0.25,mlp=none]")
    tokens = jnp.arange(9)

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def loss_of(model):
        return jax.nn.logsumexp(model(tokens)[0])

    loss, gradient = loss_of(model)
    assert jnp.isfinite(loss)
    last = list(gradient.stack.layers())[-1]
    assert float(jnp.abs(last.temporal.mix).max()) > 0
    assert last.mlp is None


def test_a_stranger_is_told_of_its_options(install):
    install("good")
    text = error_of(registry.plan, "S[mix=2]")
    assert text == "token_shift: mix: must be between 0 and 1, got 2.0\n  S[mix=2]\n    ^^^^^"


def test_a_strangers_block_keeps_the_laws(install):
    install("good")
    law_tests(registry.load("S"))  # makes the tests; the laws that tell most are run
    for law in ("streaming", "packing", "padding"):
        gx.check_block(registry.load("S"), law, max_examples=5)


def test_a_broken_plugin_breaks_only_the_patterns_that_name_it(install):
    install("broken")
    assert [entry.name for entry in registry.entries()] == sorted([*BUILT_IN, "no_block", "wreck"])
    registry.plan("rg_lru local_mqa")
    assert error_of(registry.plan, "rg_lru wreck") == (
        "block 'wreck' of broken-blocks 0.1 cannot be imported from broken_blocks.wreck:WreckBlock.\n"
        "  rg_lru wreck\n"
        "         ^^^^^\n"
        "RuntimeError: no such accelerator\n"
        "Mend or uninstall that distribution; other blocks work."
    )
    assert "is no temporal-mixing block" in error_of(registry.load, "no_block")


def test_two_blocks_under_one_name_are_refused_and_both_owners_named(install):
    found = install("good", "rival")
    text = error_of(found.resolve, "rg_lru token_shift")
    assert "'token_shift' is offered by acme-blocks 0.1 and by rival-blocks 0.1." in text
    assert str(found.resolve("rg_lru")) == "rg_lru"


# Blocks at hand


def make_block(name: str = "mine", **attributes) -> type[gx.AbstractBlock]:
    parent = registry.load("rg_lru")
    return type("Mine", (parent,), {"name": name, "aliases": (), "__module__": __name__, **attributes})


def test_an_added_block_is_used_by_name(added):
    block = added.add(make_block())
    assert registry.load("MINE") is block
    assert isinstance(next(small_model("mine[gate_blocks=2]").stack.layers()).temporal, block)
    replacement = added.add(make_block())  # as a notebook cell run again
    assert registry.load("mine") is replacement


def test_an_added_block_may_not_take_a_name_that_is_there(added):
    text = error_of(added.add, make_block("rg-lru"))
    assert text.startswith("the block name 'rg_lru' is offered by griffin_eqx 0.1.0 and by registry.add of ")
    added.add(make_block())
    other = make_block(__qualname__="Other")
    assert "offered by registry.add of" in error_of(added.add, other)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (lambda: int, "<class 'int'> is no temporal-mixing block."),
        (lambda: type("Bare", (gx.AbstractBlock,), {}), "Bare lacks name, Options, cache_growth, __call__"),
        (lambda: make_block(Options=int), "Mine.Options is no dataclass."),
        (lambda: make_block(not_applicable={"casual": "x"}), "Mine.not_applicable names no law: casual."),
    ],
)
def test_a_class_that_breaks_the_form_of_the_contract_is_refused(added, block, message):
    assert error_of(added.add, block()).startswith(message)


def test_a_file_adds_every_concrete_block_in_it(added):
    blocks = added.add_file(DISTRIBUTIONS / "good/acme_blocks/token_shift.py")
    assert [block.name for block in blocks] == ["token_shift"]
    assert str(registry.resolve("s")) == "token_shift"
    registry.plan("S rg_lru")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file."),
        ("x = 1", "it defines no concrete block."),
        ("raise KeyError('x')", "running it failed.\nKeyError: 'x'"),
        ("from griffin_plugins.rg_lru import RGLRUBlock", "it defines no concrete block."),
    ],
)
def test_a_file_without_a_block_says_so(added, tmp_path, content, message):
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    assert message in error_of(added.add_file, path)
