"""A model laid out for decoding: one array a layer, where training stacks the layers that repeat."""

import equinox as eqx
import jax
from jaxtyping import Array, Int

from griffin_eqx.model import LanguageModel, Stack


def unstacked(model: LanguageModel) -> LanguageModel:
    """The same model with every layer's arrays apart; its own arrays, layer by layer, are copied.

    A scan over stacked parameters copies each layer's weights out of the stack before it uses them, which at
    one token a turn is most of the work. The code of layers is the same, and so is what they compute. A model
    whose pattern repeats nothing is handed back as it is.
    """
    if all(repeats == 1 for repeats in model.stack.repeats):
        return model
    arrays, static = eqx.partition(model.stack.units, eqx.is_array)
    units = []
    for unit, shell, repeats in zip(arrays, static, model.stack.repeats, strict=True):
        for i in range(repeats):
            for part, own in zip(unit, shell, strict=True):
                taken = part if repeats == 1 else jax.tree.map(lambda z, i=i: _row(z, i), part)
                units.append((eqx.combine(taken, own),))
    stack = Stack(tuple(units), (1,) * len(units))
    return eqx.tree_at(lambda model: model.stack, model, stack)


@jax.jit
def _row(z: Array, i: Int[Array, ""] | int) -> Array:
    """One program a shape, whichever row."""
    return jax.lax.dynamic_index_in_dim(z, i, keepdims=False)
