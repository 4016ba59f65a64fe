"""Draws validation bits per byte against steps from the metrics of finished runs.

    python experiments/first_run/plot.py runs/griffin-shakespeare runs/hawk-shakespeare runs/mqa-shakespeare

Writes `curves.svg` and `results.jsonl` beside this file and prints the table of its README. Needs matplotlib
(`pip install -e .[report]`).
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt

import griffin_eqx as gx
from griffin_eqx.config import load_file
from griffin_eqx.training.metrics import read_metrics

HERE = Path(__file__).parent


def curve(run: Path) -> list[tuple[int, float, float]]:
    """`(step, seconds of training, validation bits per byte)` of each evaluation."""
    seconds, points = 0.0, []
    for line in read_metrics(run / "metrics.jsonl"):
        if line["kind"] == "train":
            seconds = line["time"]["seconds"]
        elif line["kind"] == "validation":
            points.append((line["step"], seconds, line["bits_per_byte"]))
    return points


def main(runs: list[str]) -> None:
    """Reads each run, draws all of them."""
    figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    results = []
    for run in map(Path, runs):
        config = load_file(run / "config.toml")
        points = curve(run)
        family = run.name.partition("-")[0].capitalize().replace("Mqa", "MQA Transformer")
        steps, seconds, bits = zip(*points, strict=True)
        axes.plot(steps, bits, marker="o", markersize=3, label=f"{family}  {config.model.pattern}")
        results.append(
            {
                "model": family,
                "pattern": config.model.pattern,
                "parameters": gx.describe(config).parameters,
                "steps": config.train.steps,
                "seconds": round(seconds[-1], 1),
                "validation_bits_per_byte": round(bits[-1], 4),
                "curve": [[step, round(value, 4)] for step, value in zip(steps, bits, strict=True)],
            }
        )
    axes.set(xlabel="steps of 2,048 tokens", ylabel="validation bits per byte")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    plt.rcParams["svg.hashsalt"] = "first_run"
    figure.savefig(HERE / "curves.svg", metadata={"Date": None})
    (HERE / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in results))
    for line in results:
        print(
            f"| {line['model']} | `{line['pattern']}` | {line['parameters']:,} | {line['steps']:,} | "
            f"{line['validation_bits_per_byte']:.3f} |"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
