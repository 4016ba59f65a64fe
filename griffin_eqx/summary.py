"""What a model is made of, told without building it: no weights are allocated."""

import dataclasses
import math

import equinox as eqx
import jax
import msgspec

from griffin_eqx import registry
from griffin_eqx.config import Config
from griffin_eqx.model import count_parameters, template
from griffin_eqx.nn import Policy


@dataclasses.dataclass(frozen=True)
class ModelSummary:
    """What a model is made of.

    Attributes:
      pattern: The resolved pattern, canonical.
      layers: The temporal-mixing block of every layer, first to last.
      runs: The layers as repeated units: (blocks of the unit, repeats).
      parameters: All parameters, the tied embedding once.
      parameters_non_embedding: Those outside of the embedding.
      weight_bytes: Memory of the weights.
      vocab_size: Number of tokens.
      precision: Dtypes of parameters, computation, output and state.
      seq_len: Tokens of the sequence that FLOPs and caches below are for.
      flops_per_token: Floating-point operations of a forward pass, logits included, over `seq_len`.
      training_flops_per_token: Three times as many: a backward pass costs two forward ones.
      cache_bytes: Memory that decoding one sequence of up to `seq_len` tokens needs, by kind of layer.
      cache_growth: How each kind's cache grows with the longest document: constant, window or linear.
    """

    pattern: str
    layers: tuple[str, ...]
    runs: tuple[tuple[tuple[str, ...], int], ...]
    parameters: int
    parameters_non_embedding: int
    weight_bytes: int
    vocab_size: int
    precision: str
    seq_len: int
    flops_per_token: float
    training_flops_per_token: float
    cache_bytes: dict[str, int]
    cache_growth: dict[str, str]

    @property
    def total_cache_bytes(self) -> int:
        """Memory of all caches together."""
        return sum(self.cache_bytes.values())


def with_vocabulary(config: Config) -> Config:
    """The configuration with its tokenizer's vocabulary where it names none."""
    if config.model.vocab_size is not None:
        return config
    from griffin_eqx.data import open_tokenizer

    model = msgspec.structs.replace(config.model, vocab_size=open_tokenizer(config.data.tokenizer).vocab_size)
    return msgspec.structs.replace(config, model=model)


def describe(config: Config, *, seq_len: int | None = None) -> ModelSummary:
    """Counts layers, parameters, FLOPs and caches of a model.

    Args:
      config: The configuration. Without a vocabulary size, that of `data.tokenizer` is taken.
      seq_len: Tokens of the sequence that FLOPs and caches are for; `config.data.seq_len` when None.

    Raises:
      PatternError: If a block or option of the pattern is wrong.
      ConfigError: If anything else of the configuration is.
      DataError: If its tokenizer cannot be read.
    """
    config = with_vocabulary(config)
    seq_len = config.data.seq_len if seq_len is None else seq_len
    if seq_len < 1:
        raise ValueError(f"seq_len={seq_len} must be at least 1.")
    policy = Policy.parse(config.train.precision)
    pattern = registry.resolve(config.model.pattern)
    model = template(config)
    caches = eqx.filter_eval_shape(lambda model: model.init_cache(seq_len), model)
    cache_bytes: dict[str, int] = {}
    cache_growth: dict[str, str] = {}
    for run, unit, unit_caches in zip(pattern.runs, model.stack.units, caches, strict=True):
        for spec, layer, cache in zip(run.unit, unit, unit_caches, strict=True):
            kind = str(spec)
            cache_bytes[kind] = cache_bytes.get(kind, 0) + _bytes(cache)
            cache_growth[kind] = type(layer.temporal).cache_growth
    parameters, non_embedding = count_parameters(model)
    flops = model.flops(seq_len) / seq_len
    return ModelSummary(
        pattern=str(pattern),
        layers=tuple(map(str, pattern.layers)),
        runs=tuple((tuple(map(str, run.unit)), run.repeats) for run in pattern.runs),
        parameters=parameters,
        parameters_non_embedding=non_embedding,
        weight_bytes=_bytes(model),
        vocab_size=model.embedding.vocab_size,
        precision=str(policy),
        seq_len=seq_len,
        flops_per_token=flops,
        training_flops_per_token=3 * flops,
        cache_bytes=cache_bytes,
        cache_growth=cache_growth,
    )


def _bytes(tree: object) -> int:
    shapes = (leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.ShapeDtypeStruct))
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in shapes)
