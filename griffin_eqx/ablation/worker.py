"""A process that trains one run after the other: `python -m griffin_eqx.ablation.worker`, started by `pool.py`.

It reads jobs from standard input and answers on standard output (`messages.py`). Its share of the processor is
settled before JAX starts, because XLA makes as many threads as the process may use cores. When its input ends,
whoever started it is gone, and it ends on the spot: what it had saved is whole, however it ends. Ctrl-C reaches the
whole process group; here only a run hears it.
"""

import argparse
import math
import os
import queue
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from griffin_eqx.ablation.messages import (
    Failed,
    Finished,
    FromWorker,
    Job,
    Ready,
    Stepped,
    Stop,
    Stopped,
    ToWorker,
    leaves,
)
from griffin_eqx.config import Config
from griffin_eqx.errors import DivergedError, GriffinError


def main(argv: list[str] | None = None) -> int:
    """Runs the worker until its input ends or it must not go on."""
    parser = argparse.ArgumentParser(prog="python -m griffin_eqx.ablation.worker", description=__doc__)
    parser.add_argument(
        "--cores", default="", help="numbers of the cores to run on, as 0,1; all when left out"
    )
    parser.add_argument("--cache", help="folder of JAX's compilation cache")
    parser.add_argument("--plugin", action="append", default=[], help="a file of blocks and tasks")
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipes = Pipes.take()
    take_share([int(core) for core in arguments.cores.split(",") if core])
    start_jax(arguments.cache, arguments.plugin)
    from griffin_eqx.training.loop import train

    pipes.tell(Ready())
    return serve(pipes, train)


def take_share(cores: list[int]) -> None:
    """Keeps the process to some cores; before JAX starts, or XLA's threads are made already.

    Where the system has no such thing XLA is told how many threads to make, and they run where they like. An empty
    list changes nothing.
    """
    if not cores:
        return
    os.environ["NPROC"] = str(len(cores))  # XLA's; affinity alone would do on Linux
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def usable_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def start_jax(cache: str | None, plugins: list[str]) -> None:
    """Starts JAX with a compilation cache, and adds the blocks and tasks of files."""
    import jax

    from griffin_eqx.plugin_file import add_plugin

    # JAX writes an entry in place: one that is read half-written costs a compilation, and says so.
    warnings.filterwarnings("ignore", "Error reading persistent compilation cache entry", UserWarning)
    if cache and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    for plugin in plugins:
        add_plugin(plugin)
    jax.devices()


class Pipes:
    """Both ends of the conversation.

    Args:
      source: Where jobs come from; its end ends the process.
      sink: Where answers go.
    """

    def __init__(self, source: BinaryIO, sink: BinaryIO):
        self._sink = sink
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self.stop = threading.Event()
        threading.Thread(target=self._listen, args=(source,), daemon=True).start()

    @classmethod
    def take(cls) -> "Pipes":
        """Takes standard input and output for itself: whatever else is printed goes to standard error."""
        source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(2, 1)
        return cls(source, sink)

    def next_job(self) -> Job:
        """Waits for a job."""
        return self._jobs.get()

    def tell(self, message: FromWorker) -> None:
        """Sends a message."""
        try:
            self._sink.write(msgspec.json.encode(message) + b"\n")
        except BrokenPipeError:  # nobody is there any more
            os._exit(1)

    def _listen(self, source: BinaryIO) -> None:
        decoder = msgspec.json.Decoder(ToWorker)
        for line in source:
            message = decoder.decode(line)
            if isinstance(message, Stop):
                self.stop.set()
            else:
                self._jobs.put(message)
        os._exit(0)


def serve(pipes: Pipes, train: Callable[..., Any]) -> int:
    """Trains what comes; returns the exit code where the process had better not go on."""
    while True:
        job = pipes.next_job()
        _fresh_memory()
        end: FromWorker = Stopped()
        if not pipes.stop.is_set():
            end = trained(train, job.run_dir, job.config, stop=pipes.stop.is_set, tell=pipes.tell)
        pipes.tell(end)
        if leaves(end):
            return 0


def alone(run_dir: str, config: Config, cache: str, plugins: list[str]) -> Finished | Stopped | Failed:
    """Trains one run in this process, which a cluster has started for it; its cores are the cluster's matter."""
    start_jax(cache, plugins)
    from griffin_eqx.training.loop import train

    return trained(train, run_dir, config, stop=lambda: False, tell=lambda news: None)


def trained(
    train: Callable[..., Any],
    run_dir: str,
    config: Config,
    *,
    stop: Callable[[], bool],
    tell: Callable[[Stepped], None],
) -> Finished | Stopped | Failed:
    """Trains a run, and gives how it ended, errors included.

    Args:
      train: `training.loop.train`.
      run_dir: Where.
      config: What.
      stop: Whether it is to save and stop.
      tell: Told how it goes.
    """

    def watch(step: int, loss: float, tokens_per_second: float) -> None:
        finite = loss if math.isfinite(loss) else None
        tell(Stepped(step=step, loss=finite, tokens_per_second=tokens_per_second))

    try:
        result = train(config, run_dir=run_dir, quiet=True, stop=lambda step: stop(), watch=watch)
    except DivergedError as error:
        return Failed(reason=str(error), diverged=True)
    except GriffinError as error:
        return Failed(reason=str(error))
    except Exception as error:
        traceback.print_exc()
        return Failed(reason=f"{type(error).__name__}: {error}")
    end = Finished if result.finished else Stopped
    return end(compile_seconds=result.compile_seconds)


def _fresh_memory() -> None:
    """Hands back what earlier runs have left, and lets the process's peak of memory begin anew, on Linux."""
    from griffin_eqx.cpu_memory import release_freed_memory

    release_freed_memory()
    peak = Path("/proc/self/clear_refs")
    if peak.exists():
        peak.write_text("5")


if __name__ == "__main__":
    sys.exit(main())
