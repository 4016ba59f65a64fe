"""`griffin sample`: writes text with a trained model."""

import dataclasses
import json
import unicodedata
from typing import Annotated

import tyro

from griffin_eqx.cli.arguments import Flag, Number, parse
from griffin_eqx.errors import GriffinError, RunError


@dataclasses.dataclass(frozen=True)
class Sample:
    """Write text with a trained model.

    Attributes:
      run: The run's folder; `latest` is the one in runs/ that was written to last.
      prompt: The text to continue; a new document when left out.
      max_new_tokens: Tokens to write at most.
      temperature: Below 1 keeps to likely tokens, 0 always takes the likeliest.
      top_k: Draw among this many likeliest tokens only.
      seed: Of the draws: the same seed writes the same text.
      num: Texts to write.
      json: Print one JSON object a line: prompt, text, tokens and seed.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN_DIR|latest]")] = "latest"
    prompt: str = ""
    max_new_tokens: int = 256
    temperature: float = 1.0
    top_k: Number = None
    seed: int = 0
    num: int = 1
    json: Flag = False


def run(argv: list[str]) -> int:
    """Runs the command."""
    switches = parse(Sample, argv, prog="griffin sample")
    _check(switches)
    from griffin_eqx.sampling import generate
    from griffin_eqx.training.load import load

    loaded = load(switches.run)
    tokenizer = loaded.tokenizer
    if tokenizer is None:
        raise RunError(
            f"There is no text to write: the model was trained on the task {loaded.config.data.task}.\n"
            f"  {switches.run}\n  Name a run of a task of text, or look at what this one came to: its metrics.jsonl."
        )
    prompt = [tokenizer.document, *tokenizer.encode(switches.prompt).tolist()]
    written = generate(
        loaded.model,
        [prompt] * switches.num,
        max_new_tokens=switches.max_new_tokens,
        temperature=switches.temperature,
        top_k=switches.top_k,
        stop=tokenizer.document,
        seed=switches.seed,
    )
    for i, tokens in enumerate(written):
        text = tokenizer.decode(tokens)
        if switches.json:
            row = {"prompt": switches.prompt, "text": text, "tokens": tokens, "seed": switches.seed + i}
            print(json.dumps(row))
        else:
            print(("\n---\n\n" if i else "") + printable(switches.prompt + text))
    return 0


def printable(text: str) -> str:
    """The text without control characters: what a model writes must not steer the terminal."""

    def steers(character: str) -> bool:
        return character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cf")

    return "".join("\ufffd" if steers(character) else character for character in text)


def _check(switches: Sample) -> None:
    limits = {
        "--max-new-tokens": switches.max_new_tokens >= 0,
        "--temperature": 0 <= switches.temperature < float("inf"),
        "--top-k": switches.top_k is None or switches.top_k >= 1,
        "--seed": switches.seed >= 0,
        "--num": switches.num >= 1,
    }
    if wrong := [name for name, ok in limits.items() if not ok]:
        advice = "--top-k and --num are 1 or more, the others 0 or more."
        raise GriffinError(f"{', '.join(wrong)}: out of range.\n{advice}")
