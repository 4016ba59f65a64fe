"""`griffin blocks` lists what a pattern can name, and what is wrong with it."""

import json
import sys
from pathlib import Path

import pytest

from griffin_eqx import registry

pytestmark = pytest.mark.core

DISTRIBUTIONS = Path(__file__).parents[1] / "distributions"


def test_names_aliases_and_distributions_are_listed(griffin):
    code, out, _ = griffin("blocks", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["name"] for row in rows] == ["cg_lru", "global_mqa", "local_mqa", "rg_lru"]
    assert rows[3] == {
        "name": "rg_lru",
        "aliases": ["r"],
        "distribution": rows[0]["distribution"],
        "target": "griffin_plugins.rg_lru:RGLRUBlock",
    }
    table = griffin("blocks").out
    assert all(row["name"] in table for row in rows)


def test_check_shows_what_each_block_is(griffin):
    code, out, _ = griffin("blocks", "--check", "--json")
    row = json.loads(out)[2]
    assert code == 0
    assert row["options"]["window_size"] == 1024
    assert row["options"]["mlp"] == "gated"
    assert row["source"].startswith("De et al. 2024")
    assert "multi-query attention over a sliding window" in griffin("blocks", "--check").out


def test_check_fails_where_a_block_cannot_be_imported_and_lists_the_rest(griffin, monkeypatch):
    monkeypatch.syspath_prepend(str(DISTRIBUTIONS / "broken"))
    registry.refresh()
    try:
        assert griffin("blocks").code == 0
        code, out, _ = griffin("blocks", "--check")
        rows = json.loads(griffin("blocks", "--check", "--json").out)
    finally:
        monkeypatch.undo()
        registry.refresh()
        for module in [name for name in sys.modules if name.startswith("broken_blocks")]:
            del sys.modules[module]
    assert code == 1
    assert "RuntimeError: no such accelerator" in out
    assert "recurrent block with the real-gated linear recurrent unit" in out
    assert [row["name"] for row in rows if "error" in row] == ["no_block", "wreck"]
