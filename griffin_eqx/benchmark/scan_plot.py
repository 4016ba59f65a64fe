"""The figure of `griffin bench scan`. Needs Matplotlib (extra `report`)."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from griffin_eqx.benchmark.scan import ScanBenchmark


def draw(results: Sequence[ScanBenchmark], path: Path) -> None:
    """Draws the time of each implementation, in times of the copy, forwards and with the gradient.

    Args:
      results: One group of points each.
      path: What to write; its ending names the format.
    """
    rows = [
        (result, backend)
        for result in results
        for backend in (None, *result.backends)  # None: the heading of a group
        if backend is None or not backend.not_timed
    ]
    labels = [
        f"{list(result.shape)} {result.dtype}"
        if backend is None
        else backend.name + f" ({backend.default_of})" * bool(backend.default_of)
        for result, backend in rows
    ]
    figure = Figure(figsize=(9, 1.4 + 0.27 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, kind in zip(panels, ("forward", "gradient"), strict=True):
        for place, (_, backend) in enumerate(rows):
            timing = backend and (backend.forward if kind == "forward" else backend.gradient)
            if not backend or not timing:
                continue
            color = "C0" if backend.default_of else "0.5"
            panel.plot([1, timing.times_copy], [place, place], color=color, linewidth=1)
            panel.plot(timing.times_copy, place, "o", color=color)
            panel.annotate(
                f"{timing.times_copy:.1f}",
                (timing.times_copy, place),
                (7, 0) if timing.times_copy > 1 else (-7, 0),
                textcoords="offset points",
                va="center",
                ha="left" if timing.times_copy > 1 else "right",
            )
        panel.axvline(1, color="0.3", linewidth=1)
        panel.set_yticks(range(len(rows)), labels)
        panel.tick_params(axis="y", length=0)
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter("{x:g}")
        panel.margins(x=0.2)
        panel.set_xlabel("times a copy of the same bytes")
        panel.set_title("forward" if kind == "forward" else "forward and gradient")
        panel.spines[["top", "right", "left"]].set_visible(False)
    panels[0].invert_yaxis()
    figure.suptitle(f"linear_scan on {results[0].device}, {results[0].cores} cores")
    # Without a date and random identifiers the same times give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "griffin"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
