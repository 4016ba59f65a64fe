"""What a model costs, counted from its configuration quickly enough for a search."""

import dataclasses
import functools
import math
from collections import Counter
from typing import Any, NamedTuple

import equinox as eqx
import jax

from griffin_eqx import registry
from griffin_eqx.ablation.design import Sizes
from griffin_eqx.block import Dims
from griffin_eqx.config import Config
from griffin_eqx.errors import ConfigError
from griffin_eqx.model import ResidualBlock
from griffin_eqx.nn import Policy


class LayerSizes(NamedTuple):
    """What one layer costs.

    Attributes:
      parameters: Its parameters.
      flops: Of a forward pass over `seq_len` tokens.
      cache_bytes: Of the cache for `cache_length` tokens.
    """

    parameters: int
    flops: int
    cache_bytes: int


def sizes(config: Config, *, cache_length: int | None = None) -> Sizes:
    """Counts what a model costs: the figures of `griffin_eqx.describe`, layer by distinct layer.

    Args:
      config: The configuration; `model.vocab_size` is set.
      cache_length: Tokens that the cache is for; `data.seq_len` when None.

    Raises:
      PatternError: If a block or option of the pattern is wrong.
      ConfigError: If anything else of the configuration is.
      OptionError: If an option does not fit the model's sizes.
    """
    model, seq_len = config.model, config.data.seq_len
    if model.vocab_size is None:
        raise ConfigError("model.vocab_size is not set.\nSet it, or let the task set it.")
    length = seq_len if cache_length is None else cache_length
    policy = Policy.parse(config.train.precision)
    plans = Counter(map(_distinct, registry.plan(model.pattern, model.blocks)))
    dims = Dims(
        width=model.width,
        lru_width=model.resolved_lru_width,
        num_layers=sum(plans.values()),
        num_heads=model.num_heads,
        biases=model.biases,
        dtype=policy.drawn,
    )
    parts = [
        (_counted(layer, dims, model.resolved_mlp_width, policy.compute, seq_len, length), count)
        for layer, count in sorted(plans.items(), key=lambda plan: plan[0] not in _REFUSED)
    ]
    norm = model.width
    own = norm + sum(part.parameters * count for part, count in parts)
    logits = 2 * seq_len * model.width * model.vocab_size
    flops = logits + sum(part.flops * count for part, count in parts)
    return Sizes(
        parameters=own + model.vocab_size * model.width,
        parameters_non_embedding=own,
        training_flops_per_token=3 * flops / seq_len,
        cache_bytes=sum(part.cache_bytes * count for part, count in parts),
        cache_length=length,
    )


@dataclasses.dataclass(frozen=True)
class _Distinct:
    """A layer's plan as a key: options are compared by value and need not be hashable."""

    block: type
    options: tuple[Any, ...]
    mlp: str
    plan: registry.LayerPlan = dataclasses.field(compare=False)


def _distinct(plan: registry.LayerPlan) -> _Distinct:
    return _Distinct(plan.block, dataclasses.astuple(plan.options), plan.mlp, plan)


_REFUSED: set[_Distinct] = set()
"""Layers that could not be built with some sizes. They are tried first: a search over widths meets many such."""


def _counted(
    layer: _Distinct, dims: Dims, mlp_width: int, compute: Any, seq_len: int, cache_length: int
) -> LayerSizes:
    try:
        return _layer(layer, dims, mlp_width, compute, seq_len, cache_length)
    except ValueError:
        _REFUSED.add(layer)
        raise


@functools.lru_cache(maxsize=4096)
def _layer(
    layer: _Distinct, dims: Dims, mlp_width: int, compute: Any, seq_len: int, cache_length: int
) -> LayerSizes:
    built = eqx.filter_eval_shape(ResidualBlock.init, layer.plan, dims, mlp_width, key=jax.random.key(0))
    cache = eqx.filter_eval_shape(lambda block: block.init_cache(cache_length, compute), built.temporal)
    return LayerSizes(
        parameters=sum(math.prod(leaf.shape) for leaf in _shapes(built)),
        flops=built.flops(seq_len),
        cache_bytes=sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in _shapes(cache)),
    )


def _shapes(tree: Any) -> list[jax.ShapeDtypeStruct]:
    return [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.ShapeDtypeStruct)]
