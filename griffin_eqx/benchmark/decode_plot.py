"""The figure of `griffin bench decode`: Griffin's figures 4 and 1b. Needs Matplotlib (extra `report`)."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from griffin_eqx.benchmark.decode import DecodeBenchmark


def draw(result: DecodeBenchmark, path: Path) -> None:
    """Draws the time of a token against the context, and tokens a second against the batch.

    Args:
      result: What was measured.
      path: What to write; its ending names the format.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    latency, throughput = figure.subplots(1, 2)
    for number, model in enumerate(result.models):
        style = {"color": f"C{number}", "marker": "o", "label": model.name}
        alone = sorted({point.context: point for point in model.points if point.batch == 1}.items())
        latency.plot([x for x, _ in alone], [1e3 * point.step_seconds for _, point in alone], **style)
        batches = [point for point in model.points if point.context == result.prompt]
        throughput.plot([p.batch for p in batches], [p.tokens_per_second for p in batches], **style)
    latency.set(
        xscale="log", xlabel="tokens before the one that is written", ylabel="milliseconds a token, one row"
    )
    latency.set_xscale("log", base=2)
    throughput.set(xlabel=f"rows, behind {result.prompt} tokens each", ylabel="tokens a second, all rows")
    for panel in (latency, throughput):
        panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
    latency.legend(frameon=False)
    figure.suptitle(f"decoding on {result.device}, {result.precision}")
    # Without a date and random identifiers the same times give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "griffin"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
