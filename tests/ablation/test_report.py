"""The page, Markdown, CSV and index: the same numbers, escaped, in one file that asks no network."""

import csv
import dataclasses
import itertools
import re
import sqlite3
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from griffin_eqx.ablation import report, words
from griffin_eqx.ablation.analysis import analyse
from griffin_eqx.ablation.figure_style import DARK, LIGHT, MARKERS, marker_path
from griffin_eqx.ablation.index import INDEX
from griffin_eqx.ablation.results import ResultsError, read_results
from griffin_eqx.ablation.tables import answers
from tests.ablation.folders import ACCURACY, FOUR, TEXT, Made, lay_out

EVIL = "<img src=x onerror='alert(1)'> $x_1$ & \"y\""

RECALL: dict = {"recall": (ACCURACY, "accuracy")}


class Page(HTMLParser):
    """Tags, identifiers and text of a page; every tag must be closed."""

    VOID = ("meta", "link", "input", "br")

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.ids, self.open, self.text, self.addresses = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
                self.addresses.append(value)
            assert not name.startswith("on"), (tag, name)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A plan with everything that can go wrong in names, and some of what can go wrong in runs."""
    folder = tmp_path_factory.mktemp("runs") / "made up"
    variants = {
        "hawk": FOUR["hawk"],
        EVIL: FOUR["griffin"],
        "hawk again": dataclasses.replace(FOUR["hawk"], init_seed=1000),
        "a|b `c` " + "long" * 20: FOUR["mqa"],
    }
    lay_out(
        folder,
        variants=variants,
        tasks=RECALL,
        title=f"Title </script><script>alert(1)</script> {EVIL}",
        question="1 < 2 && `three`?",
        failed={(EVIL, "recall", 1e-2, 0): f"diverged\nat {EVIL}"},
        unfinished=(("hawk", "recall", 3e-3, 2),),
    )
    return report.write_reports(folder)


@pytest.fixture(scope="module")
def page(written):
    return Page((written.paths[0]).read_text(encoding="utf-8"))


def test_everything_is_written_and_can_be_written_again(written):
    names = [path.name for path in written.paths]
    assert names == ["report.html", "report.md", "report.csv", "index.sqlite"]
    before = [path.read_bytes() for path in written.paths[:3]]
    for path in written.paths:
        path.unlink()
    report.write_reports(written.paths[0].parent)
    assert [path.read_bytes() for path in written.paths[:3]] == before
    assert written.left_out == ""


def test_the_page_asks_no_network_and_runs_no_script_but_its_own(written, page):
    text = written.paths[0].read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s\"'<>)]*", text)) <= {"http://www.w3.org/2000/svg"}
    assert all(address.startswith(("#", "data:,")) for address in page.addresses)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert page.tags.count("script") == 1
    assert "default-src 'none'" in text


def test_names_are_text_wherever_they_stand(written, page):
    text = written.paths[0].read_text(encoding="utf-8")
    assert EVIL not in text
    assert EVIL in "".join(page.text)
    markdown = written.paths[1].read_text(encoding="utf-8")
    body = re.sub(r"^(`{3,}).*?^\1$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"(?<!\\)<", body)
    for line in body.splitlines():  # a bar in a name makes no column
        if line.startswith("| ") and "FLOPs" in line:
            assert len(re.findall(r"(?<!\\)\|", line)) == len(answers(written.analysis.tasks[0]).titles) + 1


def test_identifiers_are_unique_and_lead_somewhere(page):
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)


def test_every_figure_is_told_in_words(written, page):
    text = written.paths[0].read_text(encoding="utf-8")
    figures = re.findall(r"<figure.*?</figure>", text, re.DOTALL)
    assert len(figures) == 8
    for figure in figures:
        (alt,) = re.findall(r'<svg viewBox="[^"]*" role="img" aria-label="([^"]*)"', figure)
        assert len(alt) > 40
        assert "<h3>" in figure
        assert "<figcaption>" in figure
        assert "var(--ink)" in figure
        assert not re.search(r"(fill|stroke): #", figure), "a colour that dark mode would keep"
        # A variant's own strokes are what the page hides with it.
        drawn = figure.partition("</h3>")[2].partition("<figcaption>")[0]
        assert {f"v{index}" for index in range(4)} >= set(re.findall(r'class="(v\d+)"', drawn)) > set()


def test_page_markdown_and_csv_have_the_same_numbers(written, page):
    (task,) = written.analysis.tasks
    scale = words.scale_of(task)
    shown = "".join(page.text)
    markdown = written.paths[1].read_text(encoding="utf-8")
    with open(written.paths[2], encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["rank"]]
    assert [row["variant"] for row in rows] == [row.variant for row in task.ranked]
    for line, row in zip(rows, task.ranked, strict=True):
        assert float(line["mean"]) == row.score.mean
        assert (line["low"] or None) == (None if row.score.low is None else str(row.score.low))
        assert scale.estimate(row.score) in shown
        assert scale.estimate(row.score) in markdown
        if row.difference:
            assert float(line["difference"]) == row.difference.mean
            assert scale.difference(row.difference) in shown
            assert scale.difference(row.difference) in markdown
        assert int(line["parameters_non_embedding"]) == row.cell.sizes.parameters_non_embedding


def test_runs_that_are_not_counted_stand_in_page_and_markdown(written, page):
    shown = "".join(page.text)
    for text in (shown, written.paths[1].read_text(encoding="utf-8").replace("\\", "")):
        assert "failed: diverged" in text
        assert "stopped at step 200" in text
        assert "runs/hawk/recall/lr0.003/seed2" in text
    assert "16 runs" not in shown
    assert (
        report.summary(written.analysis)
        == "4 variants, 1 task, 3 seeds, 20 runs: 18 finished, 1 failed and 1 unfinished"
    )


def test_the_null_is_told_as_what_it_is(written, page):
    assert "hawk and hawk again are the same model from independent initial weights" in "".join(page.text)


def test_the_index_holds_every_run_evaluation_bucket_and_point(written):
    runs = written.analysis.results.runs
    with sqlite3.connect(written.paths[3]) as database:

        def ask(query):
            return database.execute(query).fetchall()

        assert ask("select count(*) from runs") == [(len(runs),)]
        assert ask("select count(*) from evaluations") == [(sum(len(run.sets) for run in runs),)]
        assert ask("select count(*) from curve") == [(sum(len(run.curve) for run in runs),)]
        buckets = sum(len(outcome.by_position) for run in runs for outcome in run.sets)
        assert ask("select count(*) from buckets") == [(buckets,)]
        (mean,) = ask(
            "select avg(accuracy) from runs join evaluations using (run) "
            "where chosen and split = 'test' and name = 'length 64' and variant = 'hawk again'"
        )
        row = next(row for row in written.analysis.tasks[0].rows if row.variant == "hawk again")
        assert mean[0] == pytest.approx(row.score.mean)
        schema = "\n".join(text for (text,) in ask("select sql from sqlite_master where type = 'table'"))
        assert schema.count("--") > 25  # what columns mean is kept with them
    database.close()


TWELVE = {
    f"variant {i}": Made(f"rg_lru@{i + 1}", 0.5 + 0.03 * i, parameters=10**5 * (i + 1)) for i in range(12)
}

CASES = {
    "one seed": {"seeds": (7,)},
    "one variant": {"variants": {"hawk": FOUR["hawk"]}},
    "one rate": {"learning_rates": (3e-3,)},
    "twelve variants": {"variants": TWELVE, "seeds": (0, 1)},
    "text of losses that are not finite": {
        "tasks": {"text": (TEXT, "loss")},
        "not_finite": tuple(("mqa", "text", rate, seed) for rate in (1e-3, 3e-3, 1e-2) for seed in range(3)),
    },
    "no spread": {"noise": 0.0, "matched": False},
    "all failed": {
        "seeds": (0,),
        "failed": {(name, "recall", rate, 0): "no" for name in FOUR for rate in (1e-3, 3e-3, 1e-2)},
    },
    "nothing yet": {
        "seeds": (0,),
        "missing": tuple((name, "recall", rate, 0) for name in FOUR for rate in (1e-3, 3e-3, 1e-2)),
    },
}


@pytest.mark.parametrize("case", CASES)
def test_a_report_is_written_whatever_there_is(tmp_path, case):
    lay_out(tmp_path / "plan", **{"tasks": RECALL, **CASES[case]})
    found = report.write_reports(tmp_path / "plan")
    text = found.paths[0].read_text(encoding="utf-8")
    page = Page(text)
    assert "nan" not in re.sub(r"<[^>]*>", " ", text).lower().split()
    assert len(page.ids) == len(set(page.ids))
    expected = {
        "one seed": "one seed: no interval",
        "one variant": "hawk: ",
        "one rate": "is first with",
        "twelve variants": "12 variants",
        "text of losses that are not finite": "not finite",
        "no spread": "all seeds equal",
        "all failed": "No run has finished yet",
        "nothing yet": "12 not started",
    }
    assert expected[case] in "".join(page.text)


def test_figures_are_written_alone(written, tmp_path):
    paths = report.write_figures(written.analysis, tmp_path / "figures")
    assert [path.name for path in paths] == [
        "recall-answer.svg",
        "recall-curves.svg",
        "recall-lengths.svg",
        "recall-positions.svg",
        "recall-pareto-parameters.svg",
        "recall-pareto-cache.svg",
        "recall-pareto-speed.svg",
        "recall-learning-rates.svg",
    ]
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert "var(--" not in text
        assert "<text" not in text  # letters are outlines: the same everywhere
        assert "#ffffff" in text
        assert not re.search(r"#0[1-5]0[0-9]{3}\b", text), "a colour that was to be replaced"
    before = paths[1].read_bytes()
    assert report.write_figures(written.analysis, tmp_path / "figures")[1].read_bytes() == before


def test_without_the_extra_the_rest_is_written_and_it_is_said(written, monkeypatch, tmp_path):
    monkeypatch.setattr(report.importlib.util, "find_spec", lambda name: None)
    again = report.write_reports(written.paths[0].parent)
    assert [path.name for path in again.paths] == ["report.md", "report.csv", "index.sqlite"]
    assert again.left_out == (
        "report.html is left out: matplotlib and jinja2 are not installed.\n"
        "Install: pip install 'griffin_eqx[report]'."
    )
    with pytest.raises(ResultsError, match="Figures cannot be drawn"):
        report.write_figures(written.analysis, tmp_path)


def test_markers_fit_their_square_and_differ():
    paths = [marker_path(index) for index in range(len(MARKERS))]
    assert len(set(paths)) == len(MARKERS)
    for path in paths:
        numbers = [float(number) for number in re.findall(r"-?\d+\.\d+", path)]
        assert max(map(abs, numbers)) == pytest.approx(0.5, abs=0.01)
    assert len(LIGHT) == len(DARK) == 8


GROUNDS = pytest.mark.parametrize(("colors", "ground"), [(LIGHT, "#fdfdfc"), (DARK, "#15171b")])


def linear(color):
    """Linear sRGB of a colour."""
    parts = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


@GROUNDS
def test_colours_stand_out_from_their_ground(colors, ground):
    """3 to 1 is what WCAG 2.1 (1.4.11) asks of graphics."""
    for color in colors:
        low, high = sorted(float(linear(one) @ [0.2126, 0.7152, 0.0722]) for one in (color, ground))
        assert (high + 0.05) / (low + 0.05) >= 3, color


# What is left of red, green and blue to eyes without one kind of cone: Machado, Oliveira and Fernandes (2009).
EYES = {
    "usual": np.eye(3),
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deuteranopia": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
}


@GROUNDS
@pytest.mark.parametrize("eyes", EYES)
def test_no_two_colours_look_alike(colors, ground, eyes):
    """CIELAB distances: 2 is just seen side by side; 20 is another colour, as far as the search for them got."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])

    def lab(color):
        seen = np.clip(np.asarray(EYES[eyes]) @ linear(color), 0, 1)
        x, y, z = np.cbrt(to_xyz @ seen / [0.9505, 1.0, 1.089])
        return np.array([116 * y, 500 * (x - y), 200 * (y - z)])

    assert min(np.linalg.norm(lab(a) - lab(b)) for a, b in itertools.combinations(colors, 2)) >= 20


def test_numbers_are_read_from_files_alone(written, tmp_path):
    """A copy of the folder under another name tells the same."""
    folder: Path = written.paths[0].parent
    copy = tmp_path / folder.name
    copy.symlink_to(folder)
    tasks = analyse(read_results(copy)).tasks
    assert tasks == written.analysis.tasks
    assert INDEX not in [path.name for path in tmp_path.iterdir()]
