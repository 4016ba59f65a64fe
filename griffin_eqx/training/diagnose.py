"""Where a run stopped being finite: the first layer whose output is not, for the error that stops it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from griffin_eqx.block import SequenceLayout
from griffin_eqx.model import LanguageModel, capture
from griffin_eqx.training.global_arrays import on_host
from griffin_eqx.training.naming import flatten
from griffin_eqx.training.objective import TokenBatch, batch_nll

_IN_ORDER = ("residual", "temporal_out", "mlp_out")
_MEANING = {
    "residual": "its input",
    "temporal_out": "the output of its temporal-mixing block",
    "mlp_out": "the output of its MLP",
}


def first_not_finite(model: LanguageModel, batch: TokenBatch) -> str:
    """Runs a batch again, forward and backward, and says what is the first thing that is not finite.

    Args:
      model: The weights that the batch was run with.
      batch: The batch; a carried cache is left out.
    """
    if bad := _not_finite(model):
        return f"the parameters are not finite, first {bad}"
    (layers, logits), length = on_host((_forward(model, batch), batch.length))
    valid = np.arange(batch.tokens.shape[1]) < length[:, None]
    for index, (layer, taps) in enumerate(zip(model.stack.layers(), layers, strict=True)):
        for name in (name for name in _IN_ORDER if name in taps):
            wrong = np.argwhere(valid & ~taps[name])
            if wrong.size:
                row, token = wrong[0]
                return (
                    f"layer {index} ({layer.temporal.name}) is the first: {_MEANING[name]} is not finite, "
                    f"in row {row} from token {token} on"
                )
    if (valid & ~logits).any():
        return "all layers are finite and the logits are not"
    grads = _grads(model, batch)
    if bad := _not_finite(grads):
        return f"the loss is finite and its gradient is not, first that of {bad}"
    return "run again by itself, the batch is finite: what was carried over from the batch before was not"


@eqx.filter_jit
def _forward(model: LanguageModel, batch: TokenBatch):
    """For each layer and tap, and for the logits, where a token's values are all finite."""

    def row(tokens, positions, length):
        logits, layers = capture(model, tokens, SequenceLayout(positions, length))
        kept = [{name: taps[name] for name in _IN_ORDER if name in taps} for taps in layers]
        return jax.tree.map(lambda z: jnp.isfinite(z).all(-1), (kept, logits))

    return jax.vmap(row)(batch.tokens, batch.positions, batch.length)


@eqx.filter_jit
@eqx.filter_grad
def _grads(model: LanguageModel, batch: TokenBatch):
    return batch_nll(model, batch, None)[0]


def _not_finite(model: LanguageModel) -> str | None:
    """The name of the first parameter that is not finite."""
    for name, array in flatten({"model": model}).items():
        # Through float32: NumPy cannot ask this of every dtype that JAX has.
        if not np.isfinite(array.astype(np.float32)).all():
            return name
    return None
