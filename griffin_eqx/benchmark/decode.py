"""Decoding against its limit: a step cannot be quicker than its weights and caches can be read (Griffin, eq. 5)."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from griffin_eqx.benchmark.bandwidth import streaming_products
from griffin_eqx.benchmark.interleaved import interleave
from griffin_eqx.config import Config
from griffin_eqx.model import LanguageModel, count_parameters
from griffin_eqx.nn import Policy
from griffin_eqx.sampling import Engine, Sampling
from griffin_eqx.sampling import programs as programs_of
from griffin_eqx.sampling.prompts import as_stops
from griffin_eqx.sampling.session import State, empty_state


@dataclasses.dataclass(frozen=True)
class DecodePoint:
    """The steps of one batch at one length of its documents.

    Attributes:
      batch: Rows.
      context: Tokens that stand before the first new one, in each row.
      cache_bytes: Of all rows.
      step_seconds: Median time in which every row gets a token.
      best_seconds: The shortest.
      tokens_per_second: Of all rows, at the median.
      limit_fraction: The time in which weights and caches can be read, over the step's time: both at their medians.
    """

    batch: int
    context: int
    cache_bytes: int
    step_seconds: float
    best_seconds: float
    tokens_per_second: float
    limit_fraction: float


@dataclasses.dataclass(frozen=True)
class DecodeModel:
    """What one model came to.

    Attributes:
      name: As it was asked for.
      pattern: The layers.
      parameters: All of them, the tied embedding once.
      weight_bytes: What each step reads of them: all.
      first_token_seconds: From a prompt to its first new token when nothing is compiled yet.
      points: By batch at one context, then by context at one batch.
      largest_batch: Rows whose caches fit beside the weights into the budget of memory, by context.
    """

    name: str
    pattern: str
    parameters: int
    weight_bytes: int
    first_token_seconds: float
    points: list[DecodePoint]
    largest_batch: dict[int, int]


@dataclasses.dataclass(frozen=True)
class DecodeBenchmark:
    """What `griffin bench decode` reports.

    Attributes:
      device: Where it ran.
      precision: Dtypes.
      prompt: Tokens of the context in which batches are compared.
      memory_bytes: The budget behind `largest_batch`.
      bytes_per_second: Of the faster streaming matrix-vector product, in float32, its median over the same rounds.
      models: One each.
    """

    device: str
    precision: str
    prompt: int
    memory_bytes: int
    bytes_per_second: float
    models: list[DecodeModel]


def bench_decode(
    configs: Mapping[str, Config],
    *,
    batches: Sequence[int] = (1, 8),
    prompt: int = 1024,
    contexts: Sequence[int] = (1024, 8192, 32768, 131072),
    memory_bytes: int = 16 * 10**9,
    tokens: int = 16,
    rounds: int = 5,
    say: Callable[[str], None] = lambda _: None,
) -> DecodeBenchmark:
    """Measures the decoding of models with random weights, in turns with the products that bound it.

    A context of n tokens is one whose caches have room for it and whose positions begin there; what the caches hold
    makes no difference to the time.

    Args:
      configs: By name. The first one's precision is taken for all.
      batches: Rows, compared at `prompt` tokens of context.
      prompt: Tokens.
      contexts: Lengths compared for one row.
      memory_bytes: What weights and caches may take, for the largest batch.
      tokens: Steps of one sample.
      rounds: Samples of each.
      say: Called with what is going on.
    """
    precision = next(iter(configs.values())).train.precision
    policy = Policy.parse(precision)
    wanted = [(batch, prompt) for batch in batches]
    wanted += [(1, context) for context in contexts if (1, context) not in wanted]
    engines, firsts, runs = {}, {}, {}
    for name, config in configs.items():
        say(f"{name}: building the model")
        engines[name] = engine = Engine(random_model(config, policy))
        say(f"{name}: prompt of {prompt} tokens to the first new one, with all that has to be compiled")
        started = time.perf_counter()
        document = np.arange(prompt) % engine.vocab_size
        engine.write(engine.start([document], room=tokens), 1, Sampling(temperature=0))
        firsts[name] = time.perf_counter() - started
        for batch, context in wanted:
            say(f"{name}: compiling {batch} x {context}")
            runs[name, batch, context] = _steps(engine, batch, context, tokens)
    # In float32 whatever the model computes in: a processor without fast bfloat16 products reads no faster for them.
    streamed, products = streaming_products(jnp.float32)
    say("timing, in turns")
    samples = interleave(runs | products, rounds)
    bandwidth = max(streamed / statistics.median(samples[name]) for name in products)

    def point(name: str, batch: int, context: int) -> DecodePoint:
        seconds = [sample / tokens for sample in samples[name, batch, context]]
        step = statistics.median(seconds)
        cached = batch * cache_bytes(engines[name].model, context + tokens)
        return DecodePoint(
            batch=batch,
            context=context,
            cache_bytes=cached,
            step_seconds=step,
            best_seconds=min(seconds),
            tokens_per_second=batch / step,
            limit_fraction=(weight_bytes(engines[name].model) + cached) / bandwidth / step,
        )

    models = []
    for name, config in configs.items():
        model = engines[name].model
        rest = memory_bytes - weight_bytes(model)
        models.append(
            DecodeModel(
                name=name,
                pattern=config.model.pattern,
                parameters=count_parameters(model)[0],
                weight_bytes=weight_bytes(model),
                first_token_seconds=firsts[name],
                points=[point(name, *place) for place in wanted],
                largest_batch={
                    context: max(0, rest // cache_bytes(model, context))
                    for context in dict.fromkeys((prompt, *contexts))
                },
            )
        )
    device = jax.devices()[0]
    return DecodeBenchmark(
        f"{device.platform} {device.device_kind}", precision, prompt, memory_bytes, bandwidth, models
    )


def random_model(config: Config, policy: Policy) -> LanguageModel:
    """A model with fresh weights."""
    return eqx.filter_jit(lambda: LanguageModel.init(config.model, policy=policy, key=jax.random.key(0)))()


def weight_bytes(model: LanguageModel) -> int:
    """What a step of decoding reads of the weights, in the dtype in which they are kept."""
    return sum(z.nbytes for z in jax.tree.leaves(eqx.filter(model, eqx.is_array)))


def cache_bytes(model: LanguageModel, max_seq_len: int) -> int:
    """The cache of one row with room for a document of so many tokens."""
    shapes = jax.tree.leaves(eqx.filter_eval_shape(model.init_cache, max_seq_len))
    return sum(z.size * z.dtype.itemsize for z in shapes)


def _steps(engine: Engine, batch: int, context: int, tokens: int) -> Callable[[], Any]:
    """Writes `tokens` tokens a row behind `context` ones, the same each time; returns when they are there."""
    model = engine.model
    state = eqx.filter_jit(lambda model: empty_state(model, batch, context + tokens))(model)
    box = [programs_of.Progress(state, None, jnp.zeros(batch, bool))]
    order = programs_of.Order(
        Sampling(temperature=0).compiled(),
        jnp.arange(batch, dtype=jnp.uint32),
        jnp.asarray(as_stops(None)),
        jnp.asarray(tokens, jnp.int32),
        tokens,
    )

    def run() -> None:
        state = box[0].state
        state = State(state.cache, state.logits, jnp.full(batch, context, jnp.int32))
        progress = programs_of.Progress(state, None, jnp.zeros(batch, bool))
        box[0], piece = programs_of.write(model, order, progress, engine.tell)
        piece.tokens.block_until_ready()

    run()
    return run
