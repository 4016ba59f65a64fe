"""The train and forward step of a model, against the time that its weight products alone would take."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from griffin_eqx.config import Config
from griffin_eqx.cpu_memory import peak_memory, release_freed_memory
from griffin_eqx.model import count_parameters
from griffin_eqx.training.objective import TokenBatch, evaluate_batch
from griffin_eqx.training.step import init_state, make_step

PEAK_SIZE = 2048
"""Side of the square matrices whose product stands for the machine's peak."""


@dataclasses.dataclass(frozen=True)
class StepTime:
    """How long one kind of step takes.

    Attributes:
      compile_seconds: Tracing and compiling.
      step_seconds: Median of the repeats.
      best_seconds: The fastest repeat.
      tokens_per_second: At the median.
      matmul_peak_fraction: The time of the weight products alone at the peak rate (6 FLOPs, or forward 2, a
        parameter and token), over the step's time; both at their medians.
      best_peak_fraction: The same of the fastest step and the highest peak seen.
      temporary_bytes: What XLA plans for temporaries; None where it does not say.
    """

    compile_seconds: float
    step_seconds: float
    best_seconds: float
    tokens_per_second: float
    matmul_peak_fraction: float
    best_peak_fraction: float
    temporary_bytes: int | None


@dataclasses.dataclass(frozen=True)
class StepBenchmark:
    """What `griffin bench step` reports.

    Attributes:
      pattern: The layers.
      parameters: All of them, the tied embedding once.
      batch_size: Rows.
      seq_len: Tokens a row.
      precision: Dtypes.
      remat: What the backward pass recomputes.
      device: Where it ran.
      matmul_flops_per_second: This machine's rate for a square product in the compute dtype, the median of
        the samples taken between the steps.
      matmul_flops_per_second_best: The highest sample.
      train: The whole train step, optimizer included.
      forward: The loss alone.
      peak_bytes: The largest resident size of the process so far, everything included.
    """

    pattern: str
    parameters: int
    batch_size: int
    seq_len: int
    precision: str
    remat: str
    device: str
    matmul_flops_per_second: float
    matmul_flops_per_second_best: float
    train: StepTime
    forward: StepTime
    peak_bytes: int


def bench_step(
    config: Config, *, repeats: int = 5, say: Callable[[str], None] = lambda _: None
) -> StepBenchmark:
    """Measures the step of a configuration with random tokens.

    Args:
      config: What to measure; `data.batch_size` and `data.seq_len` give the batch.
      repeats: Timed steps, after one that is not counted.
      say: Called with what is going on.
    """
    rows, seq_len = config.data.batch_size, config.data.seq_len
    say("building the model")
    state = init_state(config, key=jax.random.key(config.train.seed))
    parameters, _ = count_parameters(state.model)
    tokens = jax.random.randint(jax.random.key(0), (rows, seq_len), 0, state.model.embedding.vocab_size)
    positions = jnp.broadcast_to(jnp.arange(seq_len, dtype=jnp.int32), tokens.shape)
    batch = TokenBatch(tokens, jnp.roll(tokens, -1, axis=1), positions, jnp.full(rows, seq_len, jnp.int32))
    continues = jnp.zeros(rows, bool)
    product = square_product(state.model.policy.compute)
    peaks: list[float] = []

    # Forward first: the train step gives the state's buffers away.
    say("compiling the forward step")
    started = time.perf_counter()
    forward: Any = eqx.filter_jit(lambda model, batch: evaluate_batch(model, batch, None)[0].sum())
    compiled = forward.lower(state.model, batch).compile()
    forward_compile = time.perf_counter() - started
    say("timing the forward step")
    forward_times = _time(partial(compiled, state.model, batch), repeats, product, peaks)

    say("compiling the train step")
    started = time.perf_counter()
    step = make_step(config).compile(state, batch, continues)
    train_compile = time.perf_counter() - started
    release_freed_memory()
    say("timing the train step")
    box = [state]
    del state

    def advance():
        box[0], metrics = step(box[0], batch, continues)
        return box[0], metrics

    train_times = _time(advance, repeats, product, peaks)
    median_peak, best_peak = statistics.median(peaks), max(peaks)

    def summarise(times, compile_seconds, flops_each, executable):
        ideal = flops_each * parameters * rows * seq_len
        median = statistics.median(times)
        return StepTime(
            compile_seconds=compile_seconds,
            step_seconds=median,
            best_seconds=min(times),
            tokens_per_second=rows * seq_len / median,
            matmul_peak_fraction=ideal / median_peak / median,
            best_peak_fraction=ideal / best_peak / min(times),
            temporary_bytes=_temporaries(executable),
        )

    device = jax.devices()[0]
    return StepBenchmark(
        pattern=config.model.pattern,
        parameters=parameters,
        batch_size=rows,
        seq_len=seq_len,
        precision=config.train.precision,
        remat=config.train.remat,
        device=f"{device.platform} {device.device_kind}",
        matmul_flops_per_second=median_peak,
        matmul_flops_per_second_best=best_peak,
        train=summarise(train_times, train_compile, 6, step.executable),
        forward=summarise(forward_times, forward_compile, 2, compiled),
        peak_bytes=peak_memory(),
    )


def square_product(dtype: Any) -> Callable[[], float]:
    """Gives a function that measures the rate of one square product in a dtype, in FLOPs a second."""
    square = jax.random.normal(jax.random.key(1), (PEAK_SIZE, PEAK_SIZE)).astype(dtype)
    multiply = jax.jit(lambda a: a @ a)
    multiply(square).block_until_ready()

    def rate() -> float:
        best = float("inf")
        for _ in range(3):
            started = time.perf_counter()
            multiply(square).block_until_ready()
            best = min(best, time.perf_counter() - started)
        return 2 * PEAK_SIZE**3 / best

    return rate


def _time(
    run: Callable[[], Any], repeats: int, product: Callable[[], float], peaks: list[float]
) -> list[float]:
    """Seconds of each repeat, with a sample of the peak before each: the machine's speed drifts."""
    jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        peaks.append(product())
        started = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - started)
    return times


def _temporaries(executable: Any) -> int | None:
    analysis = executable.compiled.memory_analysis()
    return None if analysis is None else int(analysis.temp_size_in_bytes)
