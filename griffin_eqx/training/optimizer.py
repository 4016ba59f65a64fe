"""AdamW or Muon with warm-up and cosine decay, through Optax."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from griffin_eqx.config import OptimizerConfig
from griffin_eqx.model import LanguageModel
from griffin_eqx.nn import CausalConv1D
from griffin_eqx.training.transforms import clip_by_global_norm, scale_by_adam, skipping

MUON_RMS = 0.2
"""Root mean square of Muon's updates: AdamW's in practice (Liu et al. 2025, arXiv 2502.16982, section 2.2)."""


def schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate as a part of its peak: linear warm-up from 0 to 1, then a cosine down to `final_fraction`."""
    warmup = min(config.warmup_steps, steps)
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup else 1.0,
        peak_value=1.0,
        warmup_steps=warmup,
        decay_steps=max(steps, warmup + 1),
        end_value=config.final_fraction,
    )


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformationExtraArgs:
    """Clipping, AdamW or Muon, schedule. Matrices decay; norms, biases and decay parameters do not.

    Its `update` takes the peak of the learning rate as `peak`, an argument, so that one compiled program serves every
    learning rate; and as `finite` whether the step counts. Where it does not, the state stays as it was.
    """
    clip = [clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    return optax.chain(
        *clip,
        _direction(config),
        optax.add_decayed_weights(config.weight_decay, mask=decays),
        _scale_by_learning_rate(schedule(config, steps)),
    )


def _direction(config: OptimizerConfig) -> optax.GradientTransformation:
    """The updates before decay and learning rate."""
    adam = scale_by_adam(config.beta1, config.beta2, config.eps)
    if config.name == "adamw":
        return adam
    muon = optax.chain(
        skipping(scale_by_muon(beta=config.momentum, weight_dimension_numbers=_last_two_axes)),
        optax.stateless(lambda updates, _: jax.tree.map(_as_large_as_adamw, updates)),
    )

    def label(model: LanguageModel) -> Any:
        return jax.tree.map(lambda mark: "muon" if mark else "adam", orthogonalised(model))

    return optax.partition({"muon": muon, "adam": adam}, label)


def _as_large_as_adamw(update: Array) -> Array:
    """An orthogonal matrix [m, n] has a root mean square of 1 / sqrt(max(m, n))."""
    return update * jnp.asarray(MUON_RMS * max(update.shape[-2:]) ** 0.5, update.dtype)


def _last_two_axes(tree: Any) -> Any:
    """A matrix is the last two axes of its array: each block of a diagonal is one, and each repeat of a layer."""
    return jax.tree.map(lambda _: MuonDimensionNumbers(-2, -1), tree)


def _scale_by_learning_rate(part: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """`optax.scale_by_learning_rate`, its state too, but for the peak, which is given at each update."""

    def init(params: Any) -> Any:
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Any = None, *, peak: Any = None, **_: Any):
        rate = peak * part(state.count)
        scaled = jax.tree.map(lambda u: jnp.asarray(-rate, u.dtype) * u, updates)
        return scaled, optax.ScaleByScheduleState(optax.safe_increment(state.count))

    return skipping(optax.GradientTransformationExtraArgs(init, update))


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


def orthogonalised(model: LanguageModel) -> Any:
    """A tree like the model's parameters: True for the matrices that Muon updates.

    They are the matrices inside of the layers: the embedding looks rows up, and a depthwise convolution multiplies no
    matrix.
    """

    def mark(part: Any, decaying: Any) -> Any:
        if isinstance(part, CausalConv1D):
            return jax.tree.map(lambda _: False, decaying)
        return decaying

    marks = decays(model)
    units = jax.tree.map(
        mark, model.stack.units, marks.stack.units, is_leaf=lambda part: isinstance(part, CausalConv1D)
    )
    nothing = jax.tree.map(lambda _: False, marks)
    return eqx.tree_at(lambda m: m.stack.units, nothing, units)
