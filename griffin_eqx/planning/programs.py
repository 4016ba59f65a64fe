"""The programs that are planned, over a mesh: the update of `griffin train`, one decoding step, one layer of each kind.

Arrays are described and never there; so the devices of the mesh need not be there either.
"""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from griffin_eqx.block import Cache, SequenceLayout
from griffin_eqx.config import Config
from griffin_eqx.mesh import MeshShape
from griffin_eqx.model import LanguageModel, template
from griffin_eqx.nn import Policy
from griffin_eqx.sharding import make_mesh, rows_axis, shardings
from griffin_eqx.training.objective import TokenBatch, init_batch_cache
from griffin_eqx.training.on_mesh import OnMesh
from griffin_eqx.training.step import init_state, make_step

ROWS = ("batch", "num_layers")
"""Names of the axes in front of a cache's own: one entry a row, and a row's layers stacked."""


class Written(eqx.Module):
    """What decoding carries from token to token, as `griffin_eqx.sampling.session.State`.

    (That room also knows how sessions are kept on disk, with packages that the compiler's environment has not.)
    """

    cache: Cache
    logits: Float[Array, "batch scores"]  # whole on each device: the next token is one of all
    lengths: Int[Array, " batch"]


def _nothing_written(config: Config) -> Written:
    model, rows = template(config), config.data.batch_size

    def build(model: LanguageModel) -> Written:
        cache = init_batch_cache(model, rows, config.data.seq_len)
        logits = jnp.zeros((rows, model.embedding.vocab_size), model.policy.output)
        return Written(cache, logits, jnp.zeros(rows, jnp.int32))

    return eqx.filter_eval_shape(build, model)


class Programs:
    """The programs of one configuration over one mesh, ready to be compiled.

    Args:
      config: With a vocabulary. For decoding `data.seq_len` is the longest document that caches hold.
      shape: The mesh; it divides the model and the batch.
      devices: Of the mesh.
    """

    def __init__(self, config: Config, shape: MeshShape, devices: Sequence[Any]):
        self._config = config
        self._shape = shape
        self._devices = devices
        self.mesh = make_mesh(shape, devices)

    def lower(self, job: str) -> Any:
        """The program of a job, lowered: `train`, `decode`, or a layer's, `train 0.1` (run and place in its unit)."""
        kind, _, place = job.partition(" ")
        # In effect for tracing alone: nothing must be computed on devices that are not there.
        with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
            if place:
                run, _, offset = place.partition(".")
                return self._layer(int(run), int(offset), decodes=kind == "decode")
            return self._decode() if kind == "decode" else self._train()

    def _train(self) -> Any:
        config = self._config
        on_mesh = OnMesh(self._shape, config, self._devices)
        state = eqx.filter_eval_shape(lambda: init_state(config, key=jax.random.key(0)))
        parts = [laid(part, self.mesh) for part in (state.model, state.optimizer, state.step, state.skipped)]
        parts.append(laid(state.cache, self.mesh, leading=ROWS))
        state = jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(parts))
        arrays, static = eqx.partition(state, _is_described)
        # Tokens are padded until the axis `sequence` divides them, as `OnMesh.batch` does.
        tokens = config.data.seq_len + -config.data.seq_len % self._shape.sequence
        rows = config.data.batch_size
        wide: Any = self._described((rows, tokens), np.int32)
        length: Any = self._described((rows,), np.int32)
        batch = TokenBatch(wide, wide, wide, length)
        step = make_step(config, lay=on_mesh.lay)

        def update(given: Any, arrays: Any) -> Any:
            batch, continues = given
            return eqx.filter(step(eqx.combine(arrays, static), batch, continues), eqx.is_array)

        return jax.jit(update, donate_argnums=1).lower((batch, self._described((rows,), np.bool_)), arrays)

    def _decode(self) -> Any:
        weights, static = eqx.partition(laid(template(self._config), self.mesh), _is_described)
        written = laid(_nothing_written(self._config), self.mesh, leading=ROWS)
        rows = self._config.data.batch_size

        def turn(weights: Any, written: Written) -> Written:
            model: LanguageModel = eqx.combine(weights, static)
            token = jnp.argmax(written.logits, axis=-1).astype(jnp.int32)

            def row(token: Any, start: Any, cache: Cache) -> Any:
                hidden, cache = model.hidden(token[None], SequenceLayout(start[None], jnp.int32(1)), cache)
                return hidden[0], cache

            given = (token, written.lengths, written.cache)
            hidden, cache = jax.vmap(row, spmd_axis_name=rows_axis(rows))(*given)
            after = Written(cache, model.logits(hidden), written.lengths + 1)
            return jax.lax.with_sharding_constraint(after, shardings(after, self.mesh, leading=ROWS))

        return jax.jit(turn, donate_argnums=1).lower(weights, written)

    def _layer(self, run: int, offset: int, *, decodes: bool) -> Any:
        """One layer alone: forward and, in training, backward to its input and its parameters."""
        model = template(self._config)
        layer = model.stack.units[run][offset]
        if model.stack.repeats[run] > 1:
            layer = jax.tree.map(lambda z: jax.ShapeDtypeStruct(z.shape[1:], z.dtype), layer)
        weights, static = eqx.partition(laid(layer, self.mesh), _is_described)
        policy = Policy.parse(self._config.train.precision)
        rows, tokens = self._config.data.batch_size, self._config.data.seq_len
        length = self._described((rows,), np.int32)
        width = model.embedding.weight.shape[1]
        if decodes:
            cache = eqx.filter_eval_shape(
                lambda layer: jax.vmap(lambda _: layer.temporal.init_cache(tokens, policy.compute))(
                    jnp.arange(rows)
                ),
                layer,
            )
            x = self._described((rows, 1, width), policy.compute)

            def turn(weights, cache, x, starts):
                layer = eqx.combine(weights, static)

                def row(x, start, cache):
                    return layer(x, SequenceLayout(start[None], jnp.int32(1)), cache)

                return jax.vmap(row, spmd_axis_name=rows_axis(rows))(x, starts, cache)

            return jax.jit(turn).lower(weights, laid(cache, self.mesh, leading=("batch",)), x, length)
        tokens += -tokens % self._shape.sequence
        x = self._described((rows, tokens, width), policy.compute)
        positions = self._described((rows, tokens), np.int32)

        def step(weights, x, dy, positions, length):
            def forward(weights, x):
                layer = eqx.combine(weights, static)

                def row(x, positions, length):
                    return layer(x, SequenceLayout(positions, length), None)[0]

                return jax.vmap(row, spmd_axis_name=rows_axis(rows))(x, positions, length)

            y, back = jax.vjp(forward, weights, x)
            dweights, dx = back(dy)
            return y, jax.lax.with_sharding_constraint(dweights, shardings(dweights, self.mesh)), dx

        # What stands around a layer: the residual stream, split over rows and tokens alone.
        stream = NamedSharding(self.mesh, PartitionSpec("data", "sequence"))
        compiled = jax.jit(step, out_shardings=(stream, None, stream))
        return compiled.lower(weights, x, x, positions, length)

    def _described(self, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        """An array whose first axes are rows and tokens."""
        axes = [
            axis if size % self.mesh.shape[axis] == 0 else None
            for axis, size in zip(("data", "sequence"), shape, strict=False)
        ]
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(self.mesh, PartitionSpec(*axes)))


def laid(tree: Any, mesh: Mesh, *, leading: tuple[str, ...] = ("num_layers",)) -> Any:
    """A described tree with every array in its place on a mesh.

    Raises:
      MeshError: If the mesh cannot divide an array.
    """
    arrays, static = eqx.partition(tree, _is_described)

    def put(array: jax.ShapeDtypeStruct, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)

    return eqx.combine(jax.tree.map(put, arrays, shardings(arrays, mesh, leading=leading)), static)


def _is_described(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def executed_flops(config: Config, job: str) -> int:
    """Floating-point operations of all dense products and scans of one run of a job, a multiply-add counted as 2.

    A training step is three forward passes, a fourth with `train.remat=full`, which computes every layer twice.
    """
    model = template(config)
    tokens, rows = config.data.seq_len, config.data.batch_size
    if job == "decode":  # the last token of a document that fills the cache
        return rows * (model.flops(tokens) - (model.flops(tokens - 1) if tokens > 1 else 0))
    passes = 3 * model.flops(tokens)
    if config.train.remat == "full":
        passes += model.stack.flops(tokens)
    return rows * passes


def held_bytes(config: Config, mesh: MeshShape, job: str) -> dict[str, int]:
    """Bytes a device of what lies in memory between two runs of a job, by kind, and of its batch.

    Raises:
      MeshError: If the mesh cannot divide an array.
    """
    from griffin_eqx.sharding import place

    def size(tree: Any, leading: tuple[str, ...] = ("num_layers",)) -> int:
        return sum(each.bytes_per_device for each in place(tree, mesh, leading=leading))

    rows = config.data.batch_size // mesh.data
    if job == "decode":
        written = _nothing_written(config)
        caches = size(written.cache, ROWS)
        other = size(written, ROWS) - caches
        return {"parameters": size(template(config)), "caches": caches, "batch": other}
    state = eqx.filter_eval_shape(lambda: init_state(config, key=jax.random.key(0)))
    tokens = math.ceil(config.data.seq_len / mesh.sequence)
    held = {"parameters": size(state.model), "optimizer": size(state.optimizer)}
    # Tokens, targets, positions; a length a row, and with caches whether it goes on.
    batch = rows * (3 * 4 * tokens + 4)
    if state.cache is not None:
        held["caches"], batch = size(state.cache, ROWS), batch + rows
    return held | {"batch": batch}
