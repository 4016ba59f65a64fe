"""Turns the readings beside this file into Markdown: `python table.py > table.md`."""

import json
from pathlib import Path

HERE = Path(__file__).parent
TARGETS = ("v3", "v5e", "v5p", "v6e")
NAMES = ("kernel", "by", "pass")
FIGURES = ("relayouts", "words", "of limit", "bundles", "temporaries MB", "memory ms", "issue ms")


def main() -> None:
    for target in TARGETS:
        results = [
            row for path in sorted(HERE.glob("*.json")) for row in _read(path) if row["target"] == target
        ]
        for dtype in ("float32", "bfloat16"):
            print(f"### {target}, {dtype}\n")
            print("|", " | ".join(NAMES + FIGURES), "|")
            print("|", " | ".join(["---"] * len(NAMES) + ["--:"] * len(FIGURES)), "|")
            rows = [result for result in results if result["dtype"] == dtype]
            for row in sorted(rows, key=lambda row: (row["case"], row["direction"] != "forward", _rank(row))):
                print("|", " | ".join(_cells(row)), "|")
            print()


def _read(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["results"]


def _rank(row: dict) -> int:
    return 0 if row["implementation"].startswith("pallas") else 1


def _cells(row: dict) -> list[str]:
    reading = row["reading"]
    names = [row["case"], row["implementation"], row["direction"]]
    if reading is None:
        return [*names, f"failed: {row['error']}", *[""] * (len(FIGURES) - 1)]
    return [
        *names,
        str(len(reading["relayouts"])),
        f"{row['words']:.2f}",
        _number(row["ratio"], ".2f"),
        _number(row["inner_bundles"], "d"),
        f"{reading['temporary_bytes'] / 1e6:,.1f}",
        f"{1e3 * row['memory_seconds']:.3f}",
        _number(row["compute_seconds"] and 1e3 * row["compute_seconds"], ".3f"),
    ]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


if __name__ == "__main__":
    main()
