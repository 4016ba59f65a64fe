"""The language model: residual blocks, the stack that scans over repeated layers, and the tied embedding."""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from griffin_kernels.rows import DENSE_PRODUCT
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from griffin_eqx import registry
from griffin_eqx.block import AbstractBlock, Cache, Dims, SequenceLayout, resolve_layout
from griffin_eqx.config import Config, ModelConfig
from griffin_eqx.errors import ConfigError
from griffin_eqx.nn import Embedding, GatedMLP, Int8Matrix, Linear, Policy, RMSNorm
from griffin_eqx.pattern import Pattern
from griffin_eqx.sharding import constrain
from griffin_eqx.taps import recording, tap

Remat = Literal["none", "dots", "full"]


class ResidualBlock(eqx.Module):
    """A layer: `x + temporal(norm(x))`, then `x + mlp(norm(x))` (Griffin, section 2.1).

    The second half is missing where the pattern says `mlp=none`.
    """

    temporal_norm: RMSNorm
    temporal: AbstractBlock
    mlp_norm: RMSNorm | None
    mlp: GatedMLP | None

    @classmethod
    def init(
        cls, plan: registry.LayerPlan, dims: Dims, mlp_width: int, *, key: PRNGKeyArray
    ) -> "ResidualBlock":
        """Builds one layer of a checked pattern."""
        temporal_key, mlp_key = jax.random.split(key)
        norm = partial(RMSNorm.init, dims.width, dtype=dims.dtype)
        temporal = plan.block.init(plan.options, dims, key=temporal_key)
        if plan.mlp == "none":
            return cls(norm(), temporal, None, None)
        mlp = GatedMLP.init(
            dims.width,
            mlp_width,
            num_layers=dims.num_layers,
            biases=dims.biases,
            dtype=dims.dtype,
            key=mlp_key,
        )
        return cls(norm(), temporal, norm(), mlp)

    def __call__(
        self, x: Float[Array, "seq_len width"], layout: SequenceLayout, cache: Cache | None
    ) -> tuple[Float[Array, "seq_len width"], Cache | None]:
        """Applies the layer to one sequence."""
        x = tap("residual", _as_stream(x))
        mixed, cache = self.temporal(self.temporal_norm(x), layout, cache)
        x = _as_stream(x + tap("temporal_out", mixed))
        if self.mlp is not None and self.mlp_norm is not None:
            x = _as_stream(x + tap("mlp_out", self.mlp(self.mlp_norm(x))))
        return x, cache

    def flops(self, seq_len: int) -> int:
        """Floating-point operations of one forward pass over one sequence."""
        return self.temporal.flops(seq_len) + (self.mlp.flops(seq_len) if self.mlp is not None else 0)


def _as_stream(x):
    """The residual stream over a mesh: tokens are split and widths are whole, whatever a block did inside."""
    return constrain(x, "seq_len", "width")


class Stack(eqx.Module):
    """All layers: units that repeat hold their parameters stacked and are traced once.

    Attributes:
      units: One tuple of layers a run of the pattern; arrays have a leading axis where the run repeats.
      repeats: How often each unit is applied.
    """

    units: tuple[tuple[ResidualBlock, ...], ...]
    repeats: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def init(cls, pattern: Pattern, config: ModelConfig, dims: Dims, *, key: PRNGKeyArray) -> "Stack":
        """Builds all layers of a pattern; layer i has the same weights however the pattern repeats.

        Raises:
          PatternError: If a block or option is wrong.
          ConfigError: If a default option of the config is.
        """
        plans = registry.plan(pattern, config.blocks)
        keys = jax.random.split(key, len(plans))
        make = partial(ResidualBlock.init, dims=dims, mlp_width=config.resolved_mlp_width)
        units, start = [], 0
        for run in pattern.runs:
            period = len(run.unit)
            unit = []
            for offset in range(period):
                layer_keys = keys[start + offset : start + period * run.repeats : period]
                build = partial(make, plans[start + offset])
                if run.repeats == 1:
                    unit.append(build(key=layer_keys[0]))
                else:
                    unit.append(eqx.filter_vmap(lambda k, build=build: build(key=k))(layer_keys))
            units.append(tuple(unit))
            start += period * run.repeats
        return cls(tuple(units), tuple(run.repeats for run in pattern.runs))

    def __call__(
        self,
        x: Float[Array, "seq_len width"],
        layout: SequenceLayout,
        cache: Cache | None,
        *,
        remat: Remat = "none",
        names: tuple[str, ...] | None = None,
    ) -> tuple[Float[Array, "seq_len width"], Cache | None, Any]:
        """Applies every layer.

        Returns:
          `(x, cache, captured)`: captured values have the structure of the runs; see `capture`.
        """
        caches, captured = [], []
        for index, (unit, repeats) in enumerate(zip(self.units, self.repeats, strict=True)):
            arrays, static = eqx.partition(unit, eqx.is_array)

            def run_unit(x, inputs, static=static, once=repeats == 1):
                unit, unit_cache = eqx.combine(inputs[0], static), inputs[1]
                outputs = []
                for i, layer in enumerate(unit):
                    apply = _rematerialised(partial(_apply, names=names), remat, once)
                    layer_cache = None if unit_cache is None else unit_cache[i]
                    x, *output = apply(layer, x, layout, layer_cache)
                    outputs.append(tuple(output))
                new_caches, taps = zip(*outputs, strict=True)
                return x, (None if unit_cache is None else new_caches, taps)

            inputs = (arrays, None if cache is None else cache[index])
            if repeats == 1:
                x, (new_cache, taps) = run_unit(x, inputs)
            else:
                x, (new_cache, taps) = jax.lax.scan(run_unit, x, inputs)
            caches.append(new_cache)
            captured.append(taps)
        return x, None if cache is None else tuple(caches), tuple(captured)

    def init_cache(self, max_seq_len: int, dtype: Any) -> Cache:
        """Empty caches for all layers, stacked as the layers are."""

        def fresh(layer: ResidualBlock, repeats: int) -> Cache:
            if repeats == 1:
                return layer.temporal.init_cache(max_seq_len, dtype)
            return eqx.filter_vmap(lambda block: block.init_cache(max_seq_len, dtype))(layer.temporal)

        return tuple(
            tuple(fresh(layer, repeats) for layer in unit)
            for unit, repeats in zip(self.units, self.repeats, strict=True)
        )

    def unstack(self, tree: Any) -> Iterator[Any]:
        """The parts of a tree that has the structure of `units`, one a layer, first to last."""
        for unit, repeats in zip(tree, self.repeats, strict=True):
            for i in range(repeats):
                for part in unit:
                    yield part if repeats == 1 else jax.tree.map(lambda z, i=i: z[i], part)

    def layers(self) -> Iterator[ResidualBlock]:
        """Every layer, first to last, with its own arrays."""
        arrays, static = eqx.partition(self.units, eqx.is_array)
        shells = (
            part
            for unit, repeats in zip(static, self.repeats, strict=True)
            for _ in range(repeats)
            for part in unit
        )
        for layer, shell in zip(self.unstack(arrays), shells, strict=True):
            yield eqx.combine(layer, shell)

    def flops(self, seq_len: int) -> int:
        """Floating-point operations of one forward pass over one sequence."""
        total = 0
        for unit, repeats in zip(self.units, self.repeats, strict=True):
            for layer in unit:
                single = layer if repeats == 1 else eqx.filter_eval_shape(_first, layer)
                total += repeats * single.flops(seq_len)
        return total


def _first(tree):
    return jax.tree.map(lambda z: z[0] if eqx.is_array(z) else z, tree)


def _apply(layer, x, layout, cache, *, names):
    if names is None:
        return *layer(x, layout, cache), {}
    with recording(names) as taps:
        x, cache = layer(x, layout, cache)
    return x, cache, taps


def _rematerialised(apply, remat: Remat, prevent_cse: bool):
    if remat == "none":
        return apply
    policy = _SAVES_PRODUCTS if remat == "dots" else None
    return eqx.filter_checkpoint(apply, policy=policy, prevent_cse=prevent_cse)


def _saves_layer_products(primitive, *_, **__):
    return primitive is DENSE_PRODUCT


_SAVES_PRODUCTS = jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_saveable, _saves_layer_products
    ),
    jax.checkpoint_policies.save_only_these_names("linear_scan", "local_attention"),
)


class LanguageModel(eqx.Module):
    """Tokens to logits, one sequence at a time; batches are `jax.vmap`.

    Attributes:
      embedding: Tied input and output embedding.
      stack: The layers.
      final_norm: The norm in front of the output.
      embedding_scale: Whether embeddings are multiplied by sqrt(width), rounded to bfloat16 as in
        RecurrentGemma, whose weights were trained with that value.
      logit_soft_cap: Logits become `cap * tanh(logits / cap)`; 0 is off.
      policy: Dtypes.
    """

    embedding: Embedding
    stack: Stack
    final_norm: RMSNorm
    embedding_scale: bool = eqx.field(static=True)
    logit_soft_cap: float = eqx.field(static=True)
    policy: Policy = eqx.field(static=True)

    @classmethod
    def init(cls, config: ModelConfig, *, policy: Policy | None = None, key: PRNGKeyArray) -> "LanguageModel":
        """Builds the model with fresh parameters. Under `eqx.filter_eval_shape` nothing is allocated.

        Raises:
          PatternError: If a block or option of the pattern is wrong.
          ConfigError: If `vocab_size` is missing, or a default option is wrong.
        """
        if config.vocab_size is None:
            raise ConfigError(
                "model.vocab_size is not set.\nSet it, or let the tokenizer set it by training."
            )
        policy = policy or Policy()
        pattern = Pattern.parse(config.pattern)
        dims = Dims(
            width=config.width,
            lru_width=config.resolved_lru_width,
            num_layers=len(pattern.layers),
            num_heads=config.num_heads,
            biases=config.biases,
            dtype=policy.drawn,
        )
        embedding_key, stack_key = jax.random.split(key)
        model = cls(
            embedding=Embedding.init(config.vocab_size, config.width, dtype=policy.drawn, key=embedding_key),
            stack=Stack.init(pattern, config, dims, key=stack_key),
            final_norm=RMSNorm.init(config.width, dtype=policy.drawn),
            embedding_scale=config.embedding_scale,
            logit_soft_cap=config.logit_soft_cap,
            policy=policy,
        )
        return in_int8(model) if policy.is_int8 else model

    def __call__(
        self,
        tokens: Int[Array, " seq_len"],
        layout: SequenceLayout | None = None,
        cache: Cache | None = None,
        *,
        mask: Bool[Array, " seq_len"] | None = None,
    ) -> tuple[Float[Array, "seq_len vocab_size"], Cache | None]:
        """Scores the next token after each token.

        Args:
          tokens: One sequence.
          layout: Positions and length; one unpadded document when both it and the cache are None.
          cache: None, or what `init_cache` or the last call returned.
          mask: In place of a layout, for one whole document with padding on either side: True at its
            tokens, which are contiguous. The padding is rolled behind the tokens for the layers and back
            for the answer.

        Returns:
          `(logits, cache)`: logits in the policy's output dtype, unspecified at padding.

        Raises:
          ValueError: If both a layout and a mask are given, or a cache without either.
        """
        if mask is None:
            hidden, cache = self.hidden(tokens, layout, cache)
            return self.logits(hidden), cache
        if layout is not None:
            raise ValueError("Pass a layout or a mask, not both: each says where the tokens are.")
        first = jnp.argmax(mask)
        layout = SequenceLayout(jnp.arange(tokens.shape[0], dtype=jnp.int32), mask.sum(dtype=jnp.int32))
        hidden, cache = self.hidden(jnp.roll(tokens, -first), layout, cache)
        return self.logits(jnp.roll(hidden, first, axis=0)), cache

    def hidden(
        self,
        tokens: Int[Array, " seq_len"],
        layout: SequenceLayout | None = None,
        cache: Cache | None = None,
        *,
        remat: Remat = "none",
    ) -> tuple[Float[Array, "seq_len width"], Cache | None]:
        """The last layer's output after the final norm, in the compute dtype: what `logits` scores."""
        hidden, cache, _ = self._run(tokens, layout, cache, remat=remat)
        return hidden, cache

    def _run(self, tokens, layout, cache, *, remat: Remat = "none", names: tuple[str, ...] | None = None):
        layout = resolve_layout(tokens.shape[0], layout, cache)
        x = self.embedding.encode(tokens, self.policy.compute)
        if self.embedding_scale:
            x = x * jnp.asarray(x.shape[-1] ** 0.5, jnp.bfloat16).astype(x.dtype)
        x, cache, captured = self.stack(x, layout, cache, remat=remat, names=names)
        return self.final_norm(x), cache, captured

    def logits(self, hidden: Float[Array, "*leading width"]) -> Float[Array, "*leading vocab_size"]:
        """Scores every token of the vocabulary."""
        logits = self.embedding.decode(hidden).astype(self.policy.output)
        if self.logit_soft_cap:
            logits = self.logit_soft_cap * jnp.tanh(logits / self.logit_soft_cap)
        return logits

    def init_cache(self, max_seq_len: int) -> Cache:
        """An empty cache for documents of up to `max_seq_len` tokens."""
        return self.stack.init_cache(max_seq_len, self.policy.compute)

    def flops(self, seq_len: int) -> int:
        """Floating-point operations of one forward pass over one sequence, logits included."""
        width = self.embedding.weight.shape[1]
        return self.stack.flops(seq_len) + 2 * seq_len * width * self.embedding.vocab_size


def in_int8(model: LanguageModel) -> LanguageModel:
    """The same with matrices of 8 bits: the embedding's, and those of every `Linear`, a stranger's block's as well.

    Whatever else a block holds stays as it is, arrays of its own included.
    """

    def narrow(node: Any) -> Any:
        if not isinstance(node, Linear) or isinstance(node.weight, Int8Matrix):
            return node
        weight = Int8Matrix.of(node.weight, axes=node.axes, inputs_first=True)
        return eqx.tree_at(lambda layer: layer.weight, node, weight)

    rows = model.embedding.weight
    if not isinstance(rows, Int8Matrix):
        rows = Int8Matrix.of(rows, axes=("vocab_rows", "width"), inputs_first=False)
    model = eqx.tree_at(lambda model: model.embedding.weight, model, rows)
    model = jax.tree.map(narrow, model, is_leaf=lambda node: isinstance(node, Linear))
    return dataclasses.replace(model, policy=dataclasses.replace(model.policy, param=jnp.int8))


def template(config: Config) -> LanguageModel:
    """The model with `jax.ShapeDtypeStruct`s for arrays, in the run's dtypes: nothing is allocated.

    Raises:
      ConfigError: If `vocab_size` is missing, or the precision or a default option is wrong.
      PatternError: If a block or option is.
    """
    policy = Policy.parse(config.train.precision)
    return eqx.filter_eval_shape(
        lambda: LanguageModel.init(config.model, policy=policy, key=jax.random.key(0))
    )


def capture(
    model: LanguageModel,
    tokens: Int[Array, " seq_len"],
    layout: SequenceLayout | None = None,
    cache: Cache | None = None,
    *,
    names: tuple[str, ...] = (),
) -> tuple[Float[Array, "seq_len vocab_size"], list[dict[str, Array]]]:
    """Runs the model and hands back intermediate values by layer, without editing a block.

    Every layer offers `residual` (its input), `temporal_out` and `mlp_out`; blocks offer what they `tap`:
    the recurrent ones `recurrence_gate`, `input_gate`, `log_a` (nats) and `h`, attention `attended`.

    Args:
      model: The model.
      tokens: One sequence.
      layout: As in a call of the model.
      cache: As in a call of the model.
      names: The values wanted; all of them when empty.

    Returns:
      `(logits, layers)`: one dictionary a layer, first to last.

    Raises:
      ValueError: If no layer has one of the names.
    """
    hidden, _, captured = model._run(tokens, layout, cache, names=names)
    layers = list(model.stack.unstack(captured))
    offered = set().union(*layers)
    if missing := sorted(set(names) - offered):
        raise ValueError(f"No layer taps {', '.join(missing)}; tapped are {', '.join(sorted(offered))}.")
    return model.logits(hidden), layers


def count_parameters(model: LanguageModel) -> tuple[int, int]:
    """`(all, non-embedding)` parameters: the tied embedding once, its filler rows not."""
    narrow = [node for node in jax.tree.leaves(model, is_leaf=_is_narrow) if _is_narrow(node)]
    total = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, _is_arraylike)))
    total -= sum(matrix.scale.size for matrix in narrow)
    rows, width = model.embedding.weight.shape
    non_embedding = total - rows * width
    return non_embedding + model.embedding.vocab_size * width, non_embedding


def _is_narrow(node: Any) -> bool:
    return isinstance(node, Int8Matrix)


def _is_arraylike(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
