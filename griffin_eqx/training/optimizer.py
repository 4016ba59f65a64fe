"""AdamW with warm-up and cosine decay, through Optax."""

from typing import Any

import equinox as eqx
import jax
import optax

from griffin_eqx.config import OptimizerConfig
from griffin_eqx.model import LanguageModel


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear warm-up from 0 to the peak, then a cosine down to `final_fraction` of it at the last step."""
    warmup = min(config.warmup_steps, steps)
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup else config.learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(steps, warmup + 1),
        end_value=config.learning_rate * config.final_fraction,
    )


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clipping, AdamW, schedule. Matrices decay; norms, biases and decay parameters do not."""
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    return optax.chain(
        *clip,
        optax.scale_by_adam(config.beta1, config.beta2, config.eps),
        optax.add_decayed_weights(config.weight_decay, mask=decays),
        optax.scale_by_learning_rate(learning_rate(config, steps)),
    )


def decays(model: LanguageModel) -> Any:
    """A tree like the model's parameters: True for the matrices, which weight decay pulls to zero.

    A matrix has at least two axes of its own (the one that stacks repeated layers is not) and is no bias.
    """

    def marks(tree: Any, stacked: bool) -> Any:
        def mark(path, leaf):
            is_bias = isinstance(path[-1], jax.tree_util.GetAttrKey) and path[-1].name == "bias"
            return leaf.ndim - stacked >= 2 and not is_bias

        return jax.tree_util.tree_map_with_path(mark, tree)

    marked = marks(model, stacked=False)
    units = tuple(
        marks(unit, stacked=repeats > 1)
        for unit, repeats in zip(model.stack.units, model.stack.repeats, strict=True)
    )
    return eqx.tree_at(lambda m: m.stack.units, marked, units)
