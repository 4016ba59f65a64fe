"""The run directory: the interface between training and everything that looks at its result.

```
config.toml     the resolved configuration; `griffin train runs/NAME/config.toml` is the same run
metrics.jsonl   one object a line (`metrics.py`)
checkpoints/    the newest ones and the best (`checkpoints.py`)
samples/        text, one file a step, where the task has text
outcome.jsonl   what a finished run came to (`outcome.py`), with `train.final_test`
env.json        versions, devices, commit, digest of the data
tokenizer.json  a copy of the tokenizer's file, or tokenizer.model, where it has one
```
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from griffin_eqx import presets
from griffin_eqx.config import Config, DataConfig, ModelConfig, dumps, load_file
from griffin_eqx.data import TokenizerFile
from griffin_eqx.data.tokenizers import TOKENIZERS, find_tokenizer
from griffin_eqx.errors import RunError
from griffin_eqx.pattern import Pattern
from griffin_eqx.training.differences import differences

RUNS = Path("runs")
"""Where runs live, in the current folder."""

CONFIG, METRICS, CHECKPOINTS, SAMPLES, ENV = (
    "config.toml",
    "metrics.jsonl",
    "checkpoints",
    "samples",
    "env.json",
)
PROFILE, LOCK, OUTCOME, FAILURE = "profile", ".lock", "outcome.jsonl", "failure.json"
_OURS = (CONFIG, METRICS, CHECKPOINTS, SAMPLES, ENV, PROFILE, LOCK, OUTCOME, FAILURE, *TOKENIZERS)
# What `replace_file` may leave.
_UNFINISHED = re.compile(
    r"\.(config\.toml|(metrics|outcome)\.jsonl|(env|failure|tokenizer)\.json|tokenizer\.model)\.new"
)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+-]{0,99}")


def default_name(config: Config) -> str:
    """The preset whose model this is, or `custom`, and the configuration's digest.

    >>> default_name(presets.preset("hawk-100m")).rpartition("-")[0]
    'hawk-100m'
    """
    own = _comparable(config)
    label = next((name for name in presets.names() if _comparable(presets.preset(name)) == own), "custom")
    return f"{label}-{config.digest}"


def place(config: Config, *, run_dir: str | Path | None = None, name: str | None = None) -> Path:
    """Where a run goes: `run_dir`, or `runs/NAME`, or `runs/` and the default name.

    Raises:
      RunError: If both are given, or one cannot be a folder's name.
    """
    if run_dir is not None and name is not None:
        raise RunError(f"Both run_dir={str(run_dir)!r} and name={name!r} are given.\nKeep one.")
    if run_dir is not None:
        if not str(run_dir) or re.search(r"[\0-\x1f]", str(run_dir)):
            raise RunError(f"run_dir={str(run_dir)!r} cannot be a folder.\nLeave control characters out.")
        return Path(run_dir)
    if name is not None and not _NAME.fullmatch(name):
        raise RunError(
            f"name={name!r} cannot be a run's name: it becomes a folder in {RUNS}/.\n"
            "Use up to 100 letters, digits and _ . = + -, the first of them a letter, a digit or _."
        )
    return RUNS / (name or default_name(config))


def find(run_dir: str | Path) -> Path:
    """An existing run directory; `latest` is the one in `runs/` whose metrics were written last.

    Raises:
      RunError: If there is none.
    """
    if str(run_dir) == "latest" and not (Path(run_dir) / CONFIG).exists():
        found = [path.parent for path in RUNS.glob(f"*/{CONFIG}")]
        if not found:
            raise RunError(f"There is no run yet.\n  {RUNS.absolute()}\n  Train one with: griffin train")
        return max(found, key=_last_written)
    path = Path(run_dir)
    if "\0" in str(run_dir) or not (path / CONFIG).is_file():
        near = ", ".join(sorted(str(p.parent) for p in RUNS.glob(f"*/{CONFIG}"))[:8])
        hint = f"Runs here: {near}." if near else "Train one with: griffin train"
        raise RunError(f"This is no run directory: it has no {CONFIG}.\n  {str(run_dir)!r}\n  {hint}")
    return path


@contextmanager
def claimed(
    path: Path, config: Config, facts: dict[str, Any], tokenizer: TokenizerFile | None = None
) -> Iterator[Path]:
    """Makes the directory, or takes it up again, and keeps every other process out until the block ends.

    Args:
      path: Where; parents are made.
      config: The resolved configuration.
      facts: What goes into `env.json`.
      tokenizer: The tokenizer's file, to be copied.

    Raises:
      RunError: If another process trains there, it holds another configuration or other files, the data has
        changed, or it cannot be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        foreign = sorted(
            entry.name
            for entry in path.iterdir()
            if entry.name not in _OURS and not _UNFINISHED.fullmatch(entry.name)
        )
        if foreign and not (path / CONFIG).exists():
            raise RunError(
                f"The folder is no run directory and is not empty: it holds {', '.join(foreign[:5])}.\n"
                f"  {path}\n  Name another one with --run-dir or --name."
            )
        for name in _OURS:
            if (path / name).is_symlink():
                raise RunError(
                    f"{name} is a link, and nothing is written outside of the run directory.\n"
                    f"  {path / name}\n  Put the real file or folder there, or use another run directory."
                )
        lock = open(path / LOCK, "a+")  # noqa: SIM115 closed below, and with it the lock
    except OSError as error:
        raise RunError(f"The run directory cannot be written to.\n  {path}\n  {error.strerror}.") from error
    with lock:
        _hold(lock, path)
        _settle(path, config, facts, tokenizer)
        yield path


def _hold(lock: Any, path: Path) -> None:
    """Takes the lock, which the kernel lets go of when the process dies, however it dies."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip()
        raise RunError(
            f"Another process{f' ({holder})' if holder else ''} trains in this run directory.\n"
            f"  {path}\n  Wait for it, stop it, or name another directory with --run-dir or --name."
        ) from None
    lock.truncate(0)
    lock.write(f"process {os.getpid()}\n")
    lock.flush()


def _settle(path: Path, config: Config, facts: dict[str, Any], tokenizer: TokenizerFile | None) -> None:
    """Writes configuration and facts, or compares them with those that are there."""
    if (path / CONFIG).exists():
        if changed := differences(load_file(path / CONFIG), config):
            raise RunError(
                "The run directory holds a run of another configuration.\n"
                + "".join(f"  {line}\n" for line in changed)
                + f"  {path}\n  Name another one with --run-dir or --name, or give that configuration."
            )
        _same_data(path, config, facts)
    else:
        replace_file(path / ENV, (json.dumps(facts, indent=2) + "\n").encode())
        if tokenizer is not None:
            replace_file(path / tokenizer.name, tokenizer.content)
        replace_file(path / CONFIG, dumps(config).encode())
    for name in (CHECKPOINTS, SAMPLES):
        (path / name).mkdir(exist_ok=True)


def _same_data(path: Path, config: Config, facts: dict[str, Any]) -> None:
    try:
        env = json.loads((path / ENV).read_text(encoding="utf-8"))
        there, tokenizer = env["data"]["digest"], env["data"].get("tokenizer", {}).get("digest")
        began_from = env.get("init_from", {}).get("digest")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{ENV} cannot be read, so it is unknown whether the data is still the same.\n"
            f"  {path / ENV}: {type(error).__name__}\n  Copy it again, or start in another directory."
        ) from None
    for what, old, new in (
        (facts["data"].get("corpus", config.data.task), there, facts["data"]["digest"]),
        (config.data.tokenizer, tokenizer, facts["data"].get("tokenizer", {}).get("digest")),
    ):
        if old != new:
            raise RunError(
                f"The data of {what!r} has changed since the run began: its digest was "
                f"{str(old)[:12]} and is {str(new)[:12]}.\n"
                f"  {path}\n  Bring the old data back, or start in another directory."
            )
    # Once there is a checkpoint, nobody reads the weights again that the run began from.
    if "init_from" in facts and facts["init_from"]["digest"] != began_from:
        raise RunError(
            f"The weights in {config.train.init_from!r} have changed since the run was set up, before its first "
            f"checkpoint.\n  {path}\n  Bring the old ones back, or start in another directory."
        )


def with_kept_tokenizer(data: DataConfig, path: Path) -> DataConfig:
    """The same with the run's copy of the tokenizer, where it has one."""
    kept = find_tokenizer(path)
    return data if kept is None else msgspec.structs.replace(data, tokenizer=f"file:{kept}")


def with_tokenizer_at_hand(data: DataConfig, path: Path) -> DataConfig:
    """The same with the run's copy of the tokenizer where the file that it names is gone, as in a copied run."""
    file = data.tokenizer.removeprefix("file:")
    if file == data.tokenizer:
        return data
    try:
        there = Path(file).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        there = True  # what is wrong with it is said where it is opened
    return data if there else with_kept_tokenizer(data, path)


def replace_file(path: Path, text: bytes) -> None:
    """Writes a file whole or not at all, also when the process is killed on the way."""
    beside = path.with_name(f".{path.name}.new")
    with open(beside, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def _comparable(config: Config) -> ModelConfig:
    """The model, whatever its vocabulary and however its pattern is written."""
    pattern = str(Pattern.parse(config.model.pattern))
    return msgspec.structs.replace(config.model, pattern=pattern, vocab_size=None)


def _last_written(path: Path) -> float:
    return max(file.stat().st_mtime for name in (CONFIG, METRICS) if (file := path / name).exists())
