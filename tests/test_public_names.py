"""The contents page of griffin_eqx: three lists that agree, and nothing imported before it is used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import griffin_eqx as gx

pytestmark = pytest.mark.core

SOURCE = Path(gx.__file__)


def for_type_checkers() -> dict[str, str]:
    """The names imported under TYPE_CHECKING, and the modules they come from."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert all(alias.asname == alias.name for node in imports for alias in node.names)
    return {alias.name: node.module or "" for node in imports for alias in node.names}


def test_the_three_lists_of_names_agree():
    typed = {name: module for name, module in for_type_checkers().items() if module != "griffin_eqx"}
    assert sorted(gx.__all__) == sorted(gx._HOMES) == sorted(typed)
    assert {name: f"griffin_eqx.{home}" for name, home in gx._HOMES.items()} == typed
    assert set(gx.__all__) <= set(dir(gx))


@pytest.mark.parametrize("name", gx.__all__)
def test_every_public_name_is_there(name):
    value = getattr(gx, name)
    assert callable(value)
    assert value.__doc__


def test_no_public_name_equals_a_sub_module():
    modules = {path.stem for path in SOURCE.parent.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not modules & set(gx.__all__)


def test_sub_modules_are_reached_by_attribute():
    assert gx.registry.resolve("R") == gx.Pattern.parse("rg_lru")
    assert "griffin-tiny" in gx.presets.names()


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'griffin_eqx' has no attribute 'Grifin'"):
        _ = gx.Grifin  # pyright: ignore[reportAttributeAccessIssue]


def test_help_patterns_and_configs_never_wait_for_jax():
    code = (
        "import sys, griffin_eqx as gx, griffin_eqx.cli;"
        "gx.registry.resolve('(R R L)@26'); gx.preset('griffin-tiny'); gx.PatternError;"
        "print([name for name in ('jax', 'equinox', 'numpy') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
