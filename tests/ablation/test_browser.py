"""The report opened and clicked through in headless Chromium. `make browser-test` runs this; `make test` does not.

With GRIFFIN_SCREENSHOTS=FOLDER pictures of every view are kept there.
"""

import dataclasses
import os
from pathlib import Path

import pytest

from griffin_eqx.ablation.report import write_reports
from tests.ablation.chromium import Chromium
from tests.ablation.folders import ACCURACY, FOUR, TASKS, Made, lay_out

pytestmark = pytest.mark.browser

DESKTOP, PHONE = (1280, 900), (390, 844)
VIEWS = [
    pytest.param(size, scheme, id=f"{name}-{scheme}")
    for name, size in (("desktop", DESKTOP), ("phone", PHONE), ("small phone", (320, 640)))
    for scheme in ("light", "dark")
]


@pytest.fixture(scope="module")
def browser():
    with Chromium() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The usual report, and one with all that makes a page wide and long."""
    usual = tmp_path_factory.mktemp("usual") / "plan"
    lay_out(usual)
    variants = {
        f"variant {i}": Made(f"rg_lru@{i + 1}", 0.5 + 0.03 * i, parameters=10**5 * (i + 1)) for i in range(10)
    }
    variants["<img src=http://localhost/x onerror='throw 1'>"] = FOUR["mqa"]
    variants["one_name_without_a_single_place_to_break_it_" * 3] = dataclasses.replace(
        FOUR["hawk"], init_seed=1
    )
    full = tmp_path_factory.mktemp("full") / "plan"
    lay_out(
        full,
        variants=variants,
        tasks={"recall": (ACCURACY, "accuracy")},
        title="A_title_without_a_single_place_to_break_it_" * 4,
        failed={("variant 3", "recall", 1e-2, 0): "at/a/path/without/a/single/place/to/break/it" * 8},
        unfinished=(("variant 4", "recall", 3e-3, 2),),
    )
    return {name: write_reports(folder).paths[0] for name, folder in (("usual", usual), ("full", full))}


def keep(browser, name):
    if folder := os.environ.get("GRIFFIN_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.screenshot(Path(folder) / f"{name}.png")


@pytest.mark.parametrize(("size", "scheme"), VIEWS)
@pytest.mark.parametrize("name", ["usual", "full"])
def test_the_page_fits_its_window_asks_nothing_and_complains_of_nothing(browser, pages, name, size, scheme):
    browser.look(*size, scheme=scheme)
    browser.open(pages[name])
    keep(browser, f"{name}-{size[0]}-{scheme}")
    assert browser.requests == []
    assert browser.complaints == []
    assert browser.evaluate("document.documentElement.scrollWidth") == size[0]
    # What sticks out of the window does so inside of a box that scrolls.
    outside = browser.evaluate(
        """[...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1
        && !e.closest(".scroll, pre, .shown, svg")).map(e => e.tagName + "." + e.className)"""
    )
    assert outside == []
    assert browser.evaluate("[...document.querySelectorAll('figure > svg')].every(e => e.clientHeight > 60)")


def test_colours_follow_the_scheme_and_paper_is_always_light(browser, pages):
    def ground_and_ink(**how):
        browser.look(*DESKTOP, **how)
        browser.open(pages["usual"])
        return browser.evaluate(
            """[getComputedStyle(document.body).backgroundColor,
            getComputedStyle(document.querySelector("figure > svg text")).fill,
            getComputedStyle(document.querySelector("figure > svg .v0 path")).stroke]"""
        )

    light, dark = ground_and_ink(scheme="light"), ground_and_ink(scheme="dark")
    assert light == ["rgb(253, 253, 252)", "rgb(27, 28, 31)", "rgb(10, 126, 218)"]
    assert dark == ["rgb(21, 23, 27)", "rgb(231, 232, 234)", "rgb(90, 166, 231)"]
    paper = ground_and_ink(scheme="dark", media="print")
    assert paper == ["rgb(255, 255, 255)", *light[1:]]
    assert browser.evaluate("getComputedStyle(document.querySelector('.shown')).display") == "none"


def test_on_paper_nothing_is_cut_off(browser, pages, tmp_path):
    for name, page in pages.items():
        browser.look(688, 1000, media="print")  # what A4 has between its margins, in CSS pixels
        browser.open(page)
        keep(browser, f"{name}-print")
        cut = browser.evaluate(
            """[...document.querySelectorAll("td, th, pre, p, figure")].filter(e =>
            e.getBoundingClientRect().right > innerWidth + 1 || e.scrollWidth > e.clientWidth + 1)
            .map(e => e.tagName + ": " + e.textContent.trim().slice(0, 60))"""
        )
        assert cut == []
        browser.pdf(tmp_path / "report.pdf")
        assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_click_on_a_title_sorts_the_table_and_another_turns_it(browser, pages, size):
    browser.look(*size)
    browser.open(pages["full"])

    def column(index):
        cells = f"[...document.querySelector('table').tBodies[0].rows].map(r => r.cells[{index}]"
        return browser.evaluate(f"{cells}.dataset.order ?? null)")

    ranked = column(0)
    assert [float(rank) for rank in ranked] == sorted(float(rank) for rank in ranked)
    title = "table th:nth-child(8) button"  # parameters
    browser.click(title)
    up = [float(value) for value in column(7)]
    assert up == sorted(up)
    assert browser.evaluate(f"document.querySelector('{title}').parentNode.ariaSort") == "ascending"
    browser.click(title)
    assert [float(value) for value in column(7)] == up[::-1]
    browser.click(
        "table th:nth-child(4) button"
    )  # the difference from the baseline, which has none: it stays last
    down = column(3)
    assert down[-1] is None
    assert [float(value) for value in down[:-1]] == sorted(float(value) for value in down[:-1])
    browser.click("table th:nth-child(2) button")
    names = browser.evaluate(
        "[...document.querySelectorAll('table')[0].tBodies[0].rows].map(r => r.cells[1].innerText)"
    )
    assert names == sorted(names, key=str.lower)
    assert browser.complaints == []


def test_a_click_on_a_name_hides_it_in_all_figures_and_another_shows_it(browser, pages):
    browser.look(*PHONE)
    browser.open(pages["usual"])

    def shown():
        return browser.evaluate(
            """["v0", "v1"].map(name => [...document.querySelectorAll(`figure > svg .${name}`)]
            .filter(e => e.getBoundingClientRect().width + e.getBoundingClientRect().height > 0).length)"""
        )

    before = shown()
    assert min(before) >= 16  # in every figure of both tasks, the answers included
    browser.click(".shown label")
    assert shown() == [0, before[1]]
    keep(browser, "usual-hidden")
    browser.click(".shown label")
    assert shown() == before


def test_it_reads_without_scripts(browser, pages, tmp_path):
    """The ranked tables, the figures and the switches need none."""
    page = tmp_path / "plain.html"
    text = pages["usual"].read_text(encoding="utf-8")
    page.write_text(
        text[: text.index("<script>")] + text[text.index("</script>") :].removeprefix("</script>")
    )
    browser.look(*DESKTOP)
    browser.open(page)
    assert browser.evaluate("document.querySelectorAll('th button').length") == 0
    assert len(TASKS) * 8 == browser.evaluate("document.querySelectorAll('figure > svg').length")
    browser.click(".shown label")
    assert browser.evaluate("getComputedStyle(document.querySelector('figure > svg .v0')).display") == "none"
    assert browser.complaints == []
