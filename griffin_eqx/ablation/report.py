"""Writes what an ablation tells, from the files of its runs alone. Imports no JAX."""

import csv
import importlib.util
from collections import Counter
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from griffin_eqx.ablation import words
from griffin_eqx.ablation.analysis import Analysis, analyse
from griffin_eqx.ablation.index import INDEX, write_index
from griffin_eqx.ablation.results import ResultsError, read_results
from griffin_eqx.ablation.tables import (
    Table,
    answers,
    commands,
    csv_rows,
    environment,
    learning_rates,
    matched,
    not_counted,
    patterns,
    sets,
)
from griffin_eqx.training.run_directory import replace_file

HTML, MARKDOWN, CSV = "report.html", "report.md", "report.csv"

INSTALL = "pip install 'griffin_eqx[report]'"


class Written(NamedTuple):
    """What a report came to.

    Attributes:
      analysis: Its numbers.
      paths: The files written, the page first, or else Markdown.
      left_out: What was not written, and why; empty where all was.
    """

    analysis: Analysis
    paths: tuple[Path, ...]
    left_out: str


def write_reports(folder: str | Path) -> Written:
    """Rebuilds report.html, report.md, report.csv and index.sqlite in the folder of a plan.

    Only the files of the plan and of its runs are read, so it may be called at any time, also while runs are going on.
    Without the extra `report` the page is left out, and `left_out` says so.

    Raises:
      ResultsError: If the folder is none of an ablation, a file is damaged, or nothing can be written there.
    """
    folder = Path(folder)
    analysis = analyse(read_results(folder))
    files = {MARKDOWN: markdown(analysis), CSV: table_csv(analysis)}
    if not (left_out := missing_extra()):
        from griffin_eqx.ablation.page import html

        files = {HTML: html(analysis), **files}
    else:
        left_out = f"{HTML} is left out: {left_out}"
    try:
        for name, text in files.items():
            replace_file(folder / name, text.encode())
        write_index(analysis, folder / INDEX)
    except OSError as error:
        raise ResultsError(f"The report cannot be written.\n  {folder}\n  {error.strerror}.") from None
    return Written(analysis, tuple(folder / name for name in (*files, INDEX)), left_out)


def write_figures(analysis: Analysis, folder: str | Path) -> list[Path]:
    """Writes every figure as an SVG of its own, in fixed colours on white.

    Raises:
      ResultsError: If the extra `report` is missing, or nothing can be written there.
    """
    if missing := missing_extra():
        raise ResultsError(f"Figures cannot be drawn: {missing}")
    from griffin_eqx.ablation.figures import draw

    folder = Path(folder)
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for task in analysis.tasks:
            for figure in draw(analysis, task, alone=True):
                paths.append(folder / f"{figure.name}.svg")
                paths[-1].write_text(figure.svg, encoding="utf-8")
    except OSError as error:
        raise ResultsError(f"Figures cannot be written.\n  {folder}\n  {error.strerror}.") from None
    return paths


def missing_extra() -> str:
    """What the page needs and is not installed, with the remedy; empty where all is there."""
    missing = [name for name in ("matplotlib", "jinja2") if importlib.util.find_spec(name) is None]
    if not missing:
        return ""
    return (
        f"{words.listed(missing)} {'is' if len(missing) == 1 else 'are'} not installed.\nInstall: {INSTALL}."
    )


def summary(analysis: Analysis) -> str:
    """How much there is, in one line."""
    runs = [run for run in analysis.results.runs if run.status != "foreign"]
    finished = sum(run.status == "finished" for run in runs)
    counts = (
        (len(analysis.variants), "variant"),
        (len(analysis.tasks), "task"),
        (len(analysis.results.design.seeds), "seed"),
        (len(runs), "run"),
    )
    told = ", ".join(f"{count} {name}{'s' * (count != 1)}" for count, name in counts)
    if finished == len(runs):
        return f"{told}, all finished"
    states = Counter("failed" if run.failure else run.state for run in runs)
    ordered = sorted(states.items(), key=lambda item: (item[0] != "finished", item[0]))
    return f"{told}: {words.listed([f'{count} {state}' for state, count in ordered])}"


def method(analysis: Analysis) -> list[str]:
    """How the numbers came about, and what they do not say."""
    first = analysis.results.design.plan.tuning == "first"
    return [
        "Every number of quality is of the test split, by the last weights. A variant's learning rate is the best on "
        f"validation of {'the first seed' if first else 'all seeds'}; intervals do not hold the chance in that choice.",
        "Intervals are 95 % Student-t over seeds. They hold for other seeds on the same data, and say nothing about "
        "other data, sizes or budgets. One seed has no interval; where all seeds agree it has no width, which is no "
        "certainty.",
        "Differences are paired: runs of one seed read the same data in the same order, and are compared with each "
        "other.",
        "p-values are of those differences, adjusted by Holm's method for every comparison made on a task, those with "
        "the baseline and those with the best: the chance of even one false claim on a task is at most 5 %. "
        "A variant is not distinguishable from the best where the adjusted p of that comparison is above 0.05. "
        "The intervals shown are not adjusted, and nothing is adjusted over tasks.",
        "Speed and memory are those of the runs as they ran, perhaps several at a time on one machine: compare them "
        "with care.",
    ]


def markdown(analysis: Analysis) -> str:
    """The report as Markdown: the same numbers as the page, without its figures."""
    plan = analysis.results.design.plan
    parts = [f"# {_plain(analysis.title)}", _plain(plan.question), f"{summary(analysis)}."]
    for task in analysis.tasks:
        parts += [f"## {_plain(task.name)}", _plain(" ".join(words.answer(task))), _markdown(answers(task))]
        for title, table in (("Every test set", sets(task)), ("Learning rates", learning_rates(task))):
            if table:
                parts += [f"### {title}", _markdown(table)]
    for title, table in sections(analysis):
        parts += [f"## {title}", _markdown(table)]
    parts += ["## How to read this", "\n".join(f"- {line}" for line in method(analysis)), "## To repeat it"]
    parts += [f"{_plain(what)}:\n\n```bash\n{command}\n```" for what, command in commands(analysis)]
    if text := analysis.results.plan_text:
        fence = "`" * (3 + max((len(run) for run in _runs_of(text, "`")), default=0))
        parts += ["## The plan", f"{fence}toml\n{text.rstrip()}\n{fence}"]
    return "\n\n".join(part for part in parts if part) + "\n"


def sections(analysis: Analysis) -> list[tuple[str, Table]]:
    """The tables that concern all tasks."""
    tables = (
        ("Runs that are not counted", not_counted(analysis.results)),
        ("What was matched", matched(analysis)),
        ("The variants", patterns(analysis)),
        ("Versions and machine", environment(analysis.results)),
    )
    return [(title, table) for title, table in tables if table]


def table_csv(analysis: Analysis) -> str:
    """The numbers, unrounded, as CSV."""
    titles, rows = csv_rows(analysis)
    file = StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(titles)
    writer.writerows(rows)
    return file.getvalue()


def _markdown(table: Table) -> str:
    lines = [
        [_cell(title) for title in table.titles],
        ["---:" if numeric else "---" for numeric in table.numeric],
        *([_cell(cell.text) for cell in row] for row in table.rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|") or " "


def _plain(text: str) -> str:
    """Text on one line that Markdown takes as text."""
    text = " ".join(text.split())
    for sign in "\\`*_[]<>#":
        text = text.replace(sign, f"\\{sign}")
    return text


def _runs_of(text: str, sign: str) -> list[str]:
    return [run for run in "".join(c if c == sign else " " for c in text).split() if run]
