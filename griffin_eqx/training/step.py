"""One update: gradients of a batch, guarded, through the optimizer."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from griffin_eqx.block import Cache
from griffin_eqx.config import Config
from griffin_eqx.model import LanguageModel
from griffin_eqx.nn import Policy
from griffin_eqx.training.freezing import apart, split
from griffin_eqx.training.objective import TokenBatch, batch_nll, init_batch_cache, keep_rows
from griffin_eqx.training.optimizer import make_optimizer
from griffin_eqx.training.transforms import kept


class TrainState(eqx.Module):
    """All that training changes. Saved and restored, it goes on bit for bit.

    Attributes:
      model: The model's weights.
      optimizer: Optax's state.
      step: Batches seen, skipped ones too.
      skipped: Updates skipped in a row because loss or gradient were not finite.
      cache: What carried rows remember, with truncated back-propagation; otherwise None.
    """

    model: LanguageModel
    optimizer: Any
    step: Int[Array, ""]
    skipped: Int[Array, ""]
    cache: Cache | None


class Metrics(eqx.Module):
    """What a step reports.

    Attributes:
      nll: Sum over the batch's targets, nats.
      targets: How many targets there were.
      grad_norm: Global norm of the gradient of the mean loss, before clipping.
      finite: Whether both are; the update was skipped where not.
    """

    nll: Float[Array, ""]
    targets: Int[Array, ""]
    grad_norm: Float[Array, ""]
    finite: Bool[Array, ""]


def init_state(config: Config, *, key: PRNGKeyArray) -> TrainState:
    """Builds model and optimizer; `config.model.vocab_size` is set. What is frozen has no moments."""

    @eqx.filter_jit
    def build(key):
        model = LanguageModel.init(config.model, policy=Policy.parse(config.train.precision), key=key)
        model = apart(model, config.train.freeze)
        parameters, _ = split(model, config.train.freeze)
        optimizer = make_optimizer(config.optimizer, config.train.steps).init(parameters)
        zero = jnp.zeros((), jnp.int32)
        rows = config.data.batch_size
        cache = init_batch_cache(model, rows, config.data.carry_max_seq_len) if config.data.carry else None
        return TrainState(model, optimizer, zero, zero, cache)

    return build(key)


class Step:
    """The jitted update: `step(state, batch, continues)` gives `(state, metrics)`.

    The state is donated: its buffers become those of the new one. `continues` says for each row whether it
    goes on from the row of the step before. The peak of the learning rate is an argument of the program, so that
    runs that differ in it, as in their seeds, share what is compiled.
    """

    def __init__(self, update: Callable[..., tuple[TrainState, Metrics]], peak: float):
        self._update: Any = eqx.filter_jit(update, donate="all-except-first")
        self._peak = jnp.asarray(peak, jnp.float32)

    def __call__(
        self, state: TrainState, batch: TokenBatch, continues: Bool[Array, " batch"]
    ) -> tuple[TrainState, Metrics]:
        """Runs one update, compiling it first where the shapes are new."""
        return self._update((batch, continues, self._peak), state)

    def lower(self, state: TrainState, batch: TokenBatch, continues: Bool[Array, " batch"]) -> Any:
        """The program for these shapes, not compiled yet."""
        return self._update.lower((batch, continues, self._peak), state)

    def compile(
        self, state: TrainState, batch: TokenBatch, continues: Bool[Array, " batch"]
    ) -> "CompiledStep":
        """Compiles for these shapes now."""
        return CompiledStep(self.lower(state, batch, continues).compile(), self._peak)


class CompiledStep:
    """A step compiled ahead of time."""

    def __init__(self, executable: Any, peak: Float[Array, ""]):
        self.executable = executable
        self._peak = peak

    def __call__(
        self, state: TrainState, batch: TokenBatch, continues: Bool[Array, " batch"]
    ) -> tuple[TrainState, Metrics]:
        """Runs one update."""
        return self.executable((batch, continues, self._peak), state)


def make_step(config: Config, *, lay: Callable[[TrainState], TrainState] = lambda state: state) -> Step:
    """Builds the update; compiles nothing yet.

    A batch whose loss or gradient norm is not finite changes neither weights nor optimizer.

    Args:
      config: The run.
      lay: Puts the new state where it is to lie (`OnMesh.lay`).
    """
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    parts = config.optimizer.accumulation

    def loss(parameters, rest, batch, cache, targets):
        nll, cache = batch_nll(eqx.combine(parameters, rest), batch, cache, remat=config.train.remat)
        return nll / jnp.maximum(targets, 1).astype(nll.dtype), (nll, cache)

    value_and_grad = eqx.filter_value_and_grad(loss, has_aux=True)

    def accumulate(parameters, rest, batch, cache, targets):
        """Gradients of the mean over all targets, whatever parts the batch is cut into."""
        if parts == 1:
            (_, (nll, cache)), grads = value_and_grad(parameters, rest, batch, cache, targets)
            return nll, cache, grads

        def cut(z):
            return z.reshape(parts, -1, *z.shape[1:])

        def add(carry, inputs):
            nll, grads = carry
            batch, cache = inputs
            (_, (part_nll, cache)), part = value_and_grad(parameters, rest, batch, cache, targets)
            return (nll + part_nll, jax.tree.map(jnp.add, grads, part)), cache

        zeros = jax.tree.map(jnp.zeros_like, parameters)
        start = (jnp.zeros((), jnp.float32), zeros)
        (nll, grads), cache = jax.lax.scan(add, start, jax.tree.map(cut, (batch, cache)))
        return nll, jax.tree.map(lambda z: z.reshape(-1, *z.shape[2:]), cache), grads

    def update(inputs, state: TrainState):
        batch, continues, peak = inputs
        model, cache = state.model, state.cache
        if cache is not None:
            fresh = init_batch_cache(model, continues.shape[0], config.data.carry_max_seq_len)
            cache = jax.lax.stop_gradient(keep_rows(cache, fresh, continues))
        targets = (batch.targets >= 0).sum(dtype=jnp.int32)
        parameters, rest = split(model, config.train.freeze)
        nll, cache, grads = accumulate(parameters, rest, batch, cache, targets)
        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(grad_norm) & jnp.isfinite(nll)
        updates, new_optimizer = optimizer.update(
            grads, state.optimizer, parameters, peak=peak, finite=finite
        )
        new_parameters = optax.apply_updates(parameters, updates)

        if cache is not None:
            # A carried state that is not finite would spoil all batches to come.
            fresh = init_batch_cache(model, continues.shape[0], config.data.carry_max_seq_len)
            cache = kept(finite, cache, fresh)
        new_state = TrainState(
            model=eqx.combine(kept(finite, new_parameters, parameters), rest),
            optimizer=new_optimizer,
            step=state.step + 1,
            skipped=jnp.where(finite, 0, state.skipped + 1),
            cache=cache,
        )
        return lay(new_state), Metrics(nll, targets, grad_norm, finite)

    return Step(update, config.optimizer.learning_rate)
