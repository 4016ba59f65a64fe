"""Seconds of a training step: measured once, in turns, and kept, so that whoever asks again hears the same.

The measurement has a process of its own, with as many cores as a run will have: a step on one core of two is not
half of anything that two cores do. `python -m griffin_eqx.ablation.timing` is that process.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from griffin_eqx.config import Config, TrainConfig
from griffin_eqx.errors import GriffinError, RunError

MEASURED = "measured.json"
ROUNDS = 7
"""Timed steps of each configuration, in turns; the median counts."""


class _Base(msgspec.Struct, frozen=True):
    """Frozen."""


class Measurement(_Base, frozen=True):
    """Steps that were timed in turns.

    Attributes:
      configs: Digests of what the speed of a step depends on.
      threads: Cores that the process had; None for all.
      seconds: Medians, in the same order.
    """

    configs: tuple[str, ...]
    threads: int | None
    seconds: tuple[float, ...]


class StepTimer:
    """Gives the seconds of a training step of some configurations, timed in turns.

    Args:
      path: Where measurements are kept, if anywhere: the same question is answered from there.
      threads: Cores that a run will have; all when None.
      plugins: Files that define blocks or tasks.
      cache: Folder of JAX's compilation cache: whoever is measured against many is compiled once.
      measure: Takes the measurement; a process of its own when None.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        threads: int | None = None,
        plugins: Sequence[Path] = (),
        cache: Path | None = None,
        measure: Callable[[Sequence[Config]], Sequence[float]] | None = None,
    ):
        self._path = path
        self._threads = threads
        self._measure = measure or (lambda configs: in_a_process(configs, threads, plugins, cache))
        # By configurations alone: a resume hears what the runs were planned by, whatever it has for cores.
        self._known = {one.configs: one for one in self._read()}

    def __call__(self, configs: Sequence[Config]) -> Sequence[float]:
        """Answers from what is known, or measures and keeps it.

        Raises:
          RunError: If the measurement fails, or what was kept cannot be read or written.
        """
        key = tuple(map(digest, configs))
        if key not in self._known:
            self._known[key] = Measurement(key, self._threads, tuple(self._measure(configs)))
            self._write()
        return self._known[key].seconds

    def _read(self) -> tuple[Measurement, ...]:
        if self._path is None or not self._path.exists():
            return ()
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=tuple[Measurement, ...])
        except (OSError, msgspec.MsgspecError) as error:
            raise RunError(
                f"{MEASURED} cannot be read, and runs were planned by it: {error}.\n"
                f"  {self._path}\n  Copy it again, or start in another folder."
            ) from None

    def _write(self) -> None:
        if self._path is None:
            return
        from griffin_eqx.training.run_directory import replace_file

        kept = list(self._known.values())
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._path, msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")
        except OSError as error:
            raise RunError(f"{MEASURED} cannot be written.\n  {self._path}\n  {error.strerror}.") from None


def digest(config: Config) -> str:
    """Names what the speed of a step depends on: neither steps nor seeds nor learning rates."""
    replace, usual = msgspec.structs.replace, TrainConfig()
    train = replace(
        usual, precision=config.train.precision, remat=config.train.remat, freeze=config.train.freeze
    )
    optimizer = replace(config.optimizer, learning_rate=0.0, warmup_steps=0, final_fraction=0.0)
    return replace(config, train=train, optimizer=optimizer).digest


def in_a_process(
    configs: Sequence[Config],
    threads: int | None = None,
    plugins: Sequence[Path] = (),
    cache: Path | None = None,
) -> tuple[float, ...]:
    """Measures in a process of its own.

    Raises:
      RunError: If it fails; the message is its last line.
    """
    command = [sys.executable, "-m", "griffin_eqx.ablation.timing", str(threads or 0), *map(str, plugins)]
    environment = dict(os.environ)
    if cache is not None:
        environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache.absolute()))
        environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    question = msgspec.json.encode(list(configs))
    done = subprocess.run(command, input=question, capture_output=True, check=False, env=environment)
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it died without a word"]
        raise RunError(
            f"The speed of a step could not be measured: {last[0]}\nTry `griffin bench step` with that model."
        )
    return tuple(json.loads(done.stdout))


def measure(configs: Sequence[Config], *, rounds: int = ROUNDS) -> tuple[float, ...]:
    """Compiles the training step of each configuration and times them in turns, in this process.

    Returns:
      The median seconds of each.
    """
    from statistics import median

    from griffin_eqx.benchmark.interleaved import interleave

    samples = interleave({index: _stepper(config) for index, config in enumerate(configs)}, rounds)
    return tuple(median(samples[index]) for index in range(len(configs)))


def _stepper(config: Config) -> Callable[[], Any]:
    """A function that trains one step, on one batch over and over."""
    import jax
    import jax.numpy as jnp

    from griffin_eqx.training.objective import TokenBatch
    from griffin_eqx.training.step import init_state, make_step

    rows, seq_len = config.data.batch_size, config.data.seq_len
    state = init_state(config, key=jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (rows, seq_len), 0, config.model.vocab_size or 2)
    positions = jnp.broadcast_to(jnp.arange(seq_len, dtype=jnp.int32), tokens.shape)
    batch = TokenBatch(tokens, jnp.roll(tokens, -1, axis=1), positions, jnp.full(rows, seq_len, jnp.int32))
    continues = jnp.zeros(rows, bool)
    step = make_step(config).compile(state, batch, continues)
    box = [state]
    del state

    def advance() -> None:
        box[0], metrics = step(box[0], batch, continues)
        jax.block_until_ready((box[0], metrics))

    return advance


def main(argv: list[str]) -> int:
    """The process: configurations as JSON on standard input, seconds as JSON on standard output."""
    threads, *plugins = argv
    if threads != "0":
        _keep_to(int(threads))
    from griffin_eqx import registry
    from griffin_eqx.cpu_memory import keep_freed_memory

    try:
        for plugin in plugins:
            registry.add_file(plugin)
        keep_freed_memory()
        configs = msgspec.json.decode(sys.stdin.buffer.read(), type=list[Config])
        print(json.dumps(measure(configs)))
    except GriffinError as error:
        print(str(error).splitlines()[0], file=sys.stderr)
        return error.exit_code
    return 0


def _keep_to(threads: int) -> None:
    """Keeps the process to some cores, before JAX makes as many threads as there are."""
    os.environ["NPROC"] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
