"""`report.html`: one file that needs nothing else and asks no network. Needs the extra `report`.

Jinja2 escapes every text; the browser is told to run no script but the page's own and to fetch nothing.
"""

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from griffin_eqx.ablation import report, words
from griffin_eqx.ablation.analysis import Analysis, TaskResult
from griffin_eqx.ablation.figure_style import DARK, LIGHT, marker_path
from griffin_eqx.ablation.figures import Figure, draw
from griffin_eqx.ablation.tables import answers, commands, learning_rates, sets

_TEMPLATES = Path(__file__).parent / "templates"


def html(analysis: Analysis) -> str:
    """Writes the page."""
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html").render(
        title=analysis.title,
        plan=analysis.results.design.plan,
        summary=report.summary(analysis),
        variants=analysis.variants,
        baseline=analysis.results.design.baseline,
        markers=[marker_path(index) for index in range(len(analysis.variants))],
        light=LIGHT,
        dark=DARK,
        tasks=[_task(analysis, task) for task in analysis.tasks],
        sections=report.sections(analysis),
        method=report.method(analysis),
        commands=commands(analysis),
        plan_text=analysis.results.plan_text,
        style=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _task(analysis: Analysis, task: TaskResult) -> dict[str, Any]:
    return {
        "name": task.name,
        "answer": words.answer(task),
        "table": answers(task),
        "indices": [analysis.variants.index(row.variant) for row in task.rows],
        "notes": [words.notes(row, task) for row in task.rows],
        "stands": [row.different for row in task.rows],
        "sets": sets(task),
        "learning_rates": learning_rates(task),
        "figures": [_figure(figure) for figure in draw(analysis, task)],
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "name": figure.name,
        "title": figure.title,
        "caption": figure.caption,
        "variants": figure.variants,
        "svg": Markup(figure.svg),
    }
