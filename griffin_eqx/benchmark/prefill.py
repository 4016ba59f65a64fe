"""Reading prompts against the time that their weight products alone would take."""

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from griffin_eqx.benchmark.decode import random_model
from griffin_eqx.benchmark.interleaved import interleave
from griffin_eqx.benchmark.step import square_product
from griffin_eqx.config import Config
from griffin_eqx.model import count_parameters
from griffin_eqx.nn import Policy
from griffin_eqx.sampling import Engine, Sampling


@dataclasses.dataclass(frozen=True)
class PrefillPoint:
    """Prompts of one length.

    Attributes:
      prompt: Tokens of each.
      batch: Prompts.
      seconds: Median time to read them and to have the scores of the next token.
      best_seconds: The shortest.
      tokens_per_second: Of all prompts, at the median.
      first_token_seconds: Median time until the first new token is there, nothing being compiled.
      matmul_peak_fraction: The time of the weight products alone (2 FLOPs a token and parameter outside of
        the embedding) at the rate of a square product in the same rounds, over `seconds`.
    """

    prompt: int
    batch: int
    seconds: float
    best_seconds: float
    tokens_per_second: float
    first_token_seconds: float
    matmul_peak_fraction: float


@dataclasses.dataclass(frozen=True)
class PrefillModel:
    """What one model came to.

    Attributes:
      name: As it was asked for.
      pattern: The layers.
      parameters: All of them, the tied embedding once.
      points: One a length.
    """

    name: str
    pattern: str
    parameters: int
    points: list[PrefillPoint]


@dataclasses.dataclass(frozen=True)
class PrefillBenchmark:
    """What `griffin bench prefill` reports.

    Attributes:
      device: Where it ran.
      precision: Dtypes.
      prefill_chunk: Tokens that are read at once.
      matmul_flops_per_second: Of a square product in the compute dtype, its median over the same rounds.
      models: One each.
    """

    device: str
    precision: str
    prefill_chunk: int
    matmul_flops_per_second: float
    models: list[PrefillModel]


def bench_prefill(
    configs: Mapping[str, Config],
    *,
    batch: int = 1,
    prompts: Sequence[int] = (128, 1024, 4096),
    prefill_chunk: int = 1024,
    rounds: int = 5,
    say: Callable[[str], None] = lambda _: None,
) -> PrefillBenchmark:
    """Measures how fast models with random weights read prompts.

    Args:
      configs: By name. The first one's precision is taken for all.
      batch: Prompts.
      prompts: Lengths, in tokens.
      prefill_chunk: Tokens that are read at once.
      rounds: Samples of each.
      say: Called with what is going on.
    """
    precision = next(iter(configs.values())).train.precision
    policy = Policy.parse(precision)
    engines = {}
    for name, config in configs.items():
        say(f"{name}: building the model")
        engines[name] = Engine(random_model(config, policy), prefill_chunk=prefill_chunk)

    def reading(engine: Engine, prompt: int, then: int) -> Callable[[], None]:
        rows = [np.arange(prompt) % engine.vocab_size] * batch

        def run() -> None:
            session = engine.start(rows, room=16)
            if then:
                session = engine.write(session, then, Sampling(temperature=0)).session
            session.state.logits.block_until_ready()

        say(f"compiling {batch} x {prompt}")
        run()
        return run

    runs = {
        (name, prompt, then): reading(engine, prompt, then)
        for name, engine in engines.items()
        for prompt in prompts
        for then in (0, 1)
    }
    peak = square_product(policy.compute)
    peaks: list[float] = []
    say("timing, in turns")
    samples = interleave(runs, rounds, lambda number, samples: peaks.append(peak()))
    rate = statistics.median(peaks)

    def point(name: str, prompt: int) -> PrefillPoint:
        seconds = statistics.median(samples[name, prompt, 0])
        _, non_embedding = count_parameters(engines[name].model)
        return PrefillPoint(
            prompt=prompt,
            batch=batch,
            seconds=seconds,
            best_seconds=min(samples[name, prompt, 0]),
            tokens_per_second=batch * prompt / seconds,
            first_token_seconds=statistics.median(samples[name, prompt, 1]),
            matmul_peak_fraction=2 * non_embedding * batch * prompt / rate / seconds,
        )

    device = jax.devices()[0]
    models = [
        PrefillModel(
            name,
            config.model.pattern,
            count_parameters(engines[name].model)[0],
            [point(name, prompt) for prompt in prompts],
        )
        for name, config in configs.items()
    ]
    return PrefillBenchmark(f"{device.platform} {device.device_kind}", precision, prefill_chunk, rate, models)
