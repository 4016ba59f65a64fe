"""The worked example of docs/verification.md is as shown: found, named, and mended by its one line."""

import re
from pathlib import Path

import pytest

from griffin_eqx import registry
from griffin_eqx.cli import main
from griffin_eqx.laws import LAWS
from griffin_eqx.verify import SCAN_LAWS

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "verification.md").read_text(encoding="utf-8")
FENCES = [text for _, text in re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)]
BLOCK = next(text for text in FENCES if text.startswith("# short_conv.py"))
SHOWN = next(text for text in FENCES if text.startswith("$ griffin verify"))
MENDED = next(text for text in FENCES if "dynamic_slice_in_dim" in text and text.startswith("   "))


@pytest.fixture
def verify(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry.default, "_added", {})
    monkeypatch.setattr("griffin_eqx.cli.verify.compile_quickly", lambda: None)

    def run(source):
        Path("short_conv.py").write_text(source)
        argv = SHOWN.splitlines()[0].split()[2:]
        code = main(argv)
        return code, capsys.readouterr().out

    return run


def test_the_mistake_is_found_as_shown(verify):
    code, out = verify(BLOCK)
    assert code == 1
    position = 0
    for line in SHOWN.splitlines()[1:]:
        for part in filter(str.strip, line.split("...")):
            position = out.find(part.strip(), position)
            assert position >= 0, (part, out)


def test_the_line_mends_it(verify):
    broken = next(line for line in BLOCK.splitlines() if "recent = seen" in line)
    code, out = verify(BLOCK.replace(broken, MENDED.rstrip()))
    assert (code, "2 of 2 laws hold" in out) == (0, True)


def test_every_law_is_in_its_table():
    named = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert named == [*LAWS, *SCAN_LAWS]


def test_links_lead_somewhere():
    pages = {path: path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")}
    links = [(path, link) for path, text in pages.items() for link in re.findall(r"\]\(([^)#]+)\)", text)]
    assert links
    assert all("://" in link or (path.parent / link).exists() for path, link in links)
