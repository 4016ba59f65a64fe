"""The verification kit is tested by mistakes: each planted one must be caught by the law it breaks."""

import sys

import pytest
from griffin_plugins.rg_lru import RGLRUBlock
from hypothesis import Phase, settings

import griffin_eqx
from tests.kernels import rg_lru_laws, unit_laws

from .mutation import BLOCKS, SCAN, UNITS, Mutant, hold, load
from .planted import MUTANTS

WITHOUT_A_MUTANT = {
    16: "a definition: what a cap of 0 means",
    17: "a default: the number of key heads",
    20: "a definition: the multiplier of a document's first token; wrong by chunk, it is a mutant without a row",
    21: "a definition: initial decays",
    24: "a definition: which channels are rotated",
    25: "a definition: the scale of embeddings",
    26: "a definition: the width of the MLP",
    27: "a definition: the norm, which is no part of a block",
    35: "of test practice: how close two kernels must be",
    36: "of test practice: tests of shapes alone, which all of these mutants would pass",
}
"""Rows of the list of real mistakes that no mutant stands for."""


@pytest.fixture(autouse=True, scope="module")
def _stop_at_the_first_failure(request):
    """Whether a mutant is caught is all that counts here: the smallest counterexample is not looked for."""
    settings.register_profile(
        "mutants",
        settings(),
        phases=[Phase.explicit, Phase.generate],
        report_multiple_bugs=False,
        database=None,
        print_blob=False,
    )
    settings.load_profile("mutants")
    yield
    settings.load_profile(request.config.getoption("--profile"))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_mistake_is_caught(mutant):
    for law in mutant.laws:
        with pytest.raises(AssertionError):
            mutant.hold(law)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_copy_without_mistake_keeps_the_laws(block):
    hold(load(BLOCKS[block], {}), "streaming", block=block)


@pytest.mark.parametrize("scan", ["reference", "xla", "associative", "pallas_gpu"])
def test_a_copy_of_a_scan_without_mistake_keeps_the_laws(scan):
    hold(load(SCAN, {}), "oracle", scan=scan)


@pytest.mark.parametrize("law", rg_lru_laws.LAWS)
def test_a_copy_of_the_fused_unit_without_mistake_keeps_the_laws(law):
    hold(load(UNITS["rg_lru"], {}), law, unit="pallas_gpu")


@pytest.mark.parametrize("law", unit_laws.LAWS)
@pytest.mark.parametrize("family", ["gated_rg_lru", "cg_lru"])
def test_a_copy_of_a_unit_with_parameters_keeps_the_laws(family, law):
    hold(load(UNITS[family], {}), law, unit="pallas_tpu", family=family)


def test_a_mutant_whose_text_is_gone_says_so():
    mutant = Mutant("gone", "causal", "griffin_eqx.nn.conv", "no such text", "", "", block="rg_lru")
    message = (
        "^mutant gone: griffin_eqx.nn.conv holds its text 0 times, expected once. "
        "The code has changed; change the mutant with it:\nno such text$"
    )
    with pytest.raises(ValueError, match=message):
        mutant.load()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_the_code_in_one_place(mutant):
    assert mutant.source()
    assert mutant.old != mutant.new
    assert sum(judged is not None for judged in (mutant.block, mutant.scan, mutant.unit)) == 1


def test_every_mutant_has_a_name_of_its_own():
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names)


def test_every_row_of_the_list_of_real_mistakes_is_accounted_for():
    planted = {row for mutant in MUTANTS for row in mutant.traps}
    assert planted | WITHOUT_A_MUTANT.keys() == set(range(1, 37))
    assert not planted & WITHOUT_A_MUTANT.keys()


def test_loading_a_mutant_leaves_the_real_modules_alone():
    before, finders, nn = dict(sys.modules), list(sys.meta_path), griffin_eqx.nn
    block = MUTANTS[0].load()
    assert block is not RGLRUBlock
    assert block.__module__ == RGLRUBlock.__module__
    assert dict(sys.modules) == before
    assert sys.meta_path == finders
    assert griffin_eqx.nn is nn
