"""`griffin verify` shows the score-board, exits with what came out, and answers mistakes with one sentence."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.core


@pytest.fixture(autouse=True)
def compiled_as_in_other_tests(monkeypatch):
    """The command sets how its process compiles; this one has other tests to run."""
    monkeypatch.setattr("griffin_eqx.cli.verify.compile_quickly", lambda: None)


def test_a_block_by_name(griffin):
    code, out, _ = griffin(
        "verify", "block", "rg_lru", "--law", "options", "--law", "bounded_cache", "--seed", "3"
    )
    assert code == 0
    assert "✓  options" in out
    assert "✓  bounded_cache" in out
    assert "2 of 2 laws hold" in out
    assert "seed 3" in out
    assert 'next: griffin train "(rg_lru rg_lru local_mqa)@6"' in out


def test_a_new_block_holds_and_broken_on_purpose_is_caught(griffin):
    griffin("new", "block", "my_idea")
    file = Path("my_idea/griffin_my_idea/my_idea.py")
    laws = ("--law", "packing", "--law", "padding", "--examples", "10")
    code, out, _ = griffin("verify", "block", "--plugin", str(file), *laws)
    assert (code, "2 of 2 laws hold" in out) == (0, True)
    assert "next: griffin train" in out

    file.write_text(file.read_text().replace("cache and cache.h, layout.reset)", "cache and cache.h)"))
    code, out, _ = griffin("verify", "block", "my_idea", "--plugin", str(file), *laws)
    assert code == 1
    assert "packing is broken" in out
    assert "smallest counterexample" in out
    assert "likely causes" in out
    assert "next: griffin verify block my_idea --law packing --seed 0" in out
    pasted = out[out.index("  from griffin_eqx import registry") : out.index("\n\n1 of 2 laws hold")]
    space: dict = {}
    exec("\n".join(line[2:] for line in pasted.splitlines()), space)
    with pytest.raises(AssertionError):
        space["test_my_idea_keeps_the_law_packing"]()


def test_options_in_brackets(griffin):
    code, out, _ = griffin("verify", "block", "local_mqa[window_size=8]", "--law", "options")
    assert code == 0
    assert "tried with: window_size=8, head_dim=4; window_size=8" in out
    out = griffin(
        "verify", "block", "local_mqa[window_size=8]", "--options", "kv_heads=2", "--law", "options"
    ).out
    assert "tried with: window_size=8, head_dim=4, kv_heads=2; window_size=8, kv_heads=2" in out


def test_json(griffin):
    code, out, _ = griffin(
        "verify", "block", "griffin_plugins.local_mqa:LocalMQABlock", "--law", "options", "--json"
    )
    board = json.loads(out)
    assert (code, board["ok"], board["subject"]) == (0, True, "local_mqa")
    assert board["laws"][0]["law"] == "options"
    assert board["laws"][0]["status"] == "holds"


def test_a_scan(griffin):
    name = "griffin_kernels.linear_scan:linear_scan"
    code, out, _ = griffin(
        "verify",
        "scan",
        name,
        "--law",
        "extremes",
        "--law",
        "reverse",
        "--options",
        "implementation=associative",
    )
    assert code == 0
    assert "-  reverse   does not apply: reverse was not asked for" in out
    assert "tried with: real, forward, float32 and bfloat16" in out
    assert f'next: griffin verify scan {name} --options "implementation=associative" --thorough' in out


def test_a_wrong_scan_in_a_file(griffin):
    Path("mine.py").write_text(
        "from griffin_kernels.linear_scan import linear_scan\n"
        "def scan(x, a, h0=None, reset=None):\n"
        "    h, _ = linear_scan(x, a, h0, reset)\n"
        "    return h, 2 * h[..., -1, :].astype('float32')\n"
    )
    code, out, _ = griffin("verify", "scan", "mine.py:scan", "--law", "split", "--float32")
    assert code == 1
    assert "split is broken" in out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("block", "rg_lruu"), "there is no block named 'rg_lruu'.\nDid you mean 'rg_lru'?"),
        (("block",), "verify block needs a name, module:Class or --plugin FILE."),
        (("block", "rg_lru", "--law", "causl"), "there is no law 'causl'.\nDid you mean causal?"),
        (("block", "rg_lru", "--options", "window=3"), "rg_lru: window: there is no such option"),
        (("block", "rg_lru", "--complex"), "--complex, --reverse and --float32 are for scans."),
        (("block", "rg_lru", "--examples", "0"), "--examples 0: must be at least 1."),
        (("block", "json:JSONDecoder"), "is no temporal-mixing block."),
        (("scan", "linear_scan"), "verify scan needs module:function or FILE.py:function"),
        (("scan", "nothing.py:scan"), "there is no file nothing.py."),
        (("scan", "griffin_kernels:nothing"), "griffin_kernels:nothing cannot be imported."),
        (("scan", "json:dumps"), "A scan is called as scan(x, a, h0, reset) and returns (h, h_last)."),
    ],
)
def test_mistakes(griffin, arguments, text):
    code, _, err = griffin("verify", *arguments)
    assert code == 2
    assert text in err
    assert "Traceback" not in err


def test_without_hypothesis_it_says_what_to_install(griffin, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = griffin("verify", "block", "rg_lru")
    assert code == 2
    assert err == "griffin: verify needs Hypothesis.\nInstall it: pip install 'griffin_eqx[verify]'.\n"
