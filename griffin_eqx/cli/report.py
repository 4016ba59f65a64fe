"""`griffin report`: what an ablation tells, rebuilt from the files of its runs."""

import dataclasses
from typing import Annotated

import tyro

from griffin_eqx.cli.arguments import Flag, Text, parse
from griffin_eqx.errors import GriffinError


@dataclasses.dataclass(frozen=True)
class Report:
    """Rebuild report.html, report.md, report.csv and index.sqlite of an ablation, and show its answer.

    Attributes:
      folder: The plan's folder, such as runs/my_plan.
      open: Open the page in a browser.
      figures: Write each figure as an SVG of its own into this folder, in fixed colours on white.
    """

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]
    open: Flag = False
    figures: Text = None


def run(argv: list[str]) -> int:
    """Runs the command."""
    switches = parse(Report, argv, prog="griffin report")
    from griffin_eqx.ablation.report import HTML, missing_extra, write_figures, write_reports
    from griffin_eqx.ablation.terminal import show

    if (switches.open or switches.figures) and (missing := missing_extra()):
        raise GriffinError(f"{'--open' if switches.open else '--figures'} needs what is missing: {missing}")
    written = write_reports(switches.folder)
    show(written.analysis)
    print()
    for path in written.paths:
        print(path)
    if switches.figures:
        for path in write_figures(written.analysis, switches.figures):
            print(path)
    if written.left_out:
        print(f"\n{written.left_out}")
    if switches.open:
        import webbrowser

        webbrowser.open((written.paths[0].parent / HTML).absolute().as_uri())
    return 0
