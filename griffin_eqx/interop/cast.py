"""The same weights in another dtype, one tensor at a time."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from jaxtyping import Array

from griffin_eqx.interop.tensor_file import TensorSpec
from griffin_eqx.interop.weights import Weights, specs_of
from griffin_eqx.nn import Int8Matrix, Policy


def cast(weights: Weights, dtype: Any) -> Weights:
    """The same weights in another dtype; the decays stay in float32, as in every model of ours.

    In int8 a matrix becomes two tensors, `NAME.values` and `NAME.scale`, and in a floating dtype they become one again;
    what is no matrix of 8 bits is float32 beside them.
    """
    policy = Policy.parse(weights.config.train.precision)
    if jnp.dtype(dtype) == jnp.dtype(policy.param):
        return weights
    compute = dtype if policy.compute == policy.param else policy.compute
    if jnp.dtype(dtype) == jnp.int8:
        compute = policy.compute
    policy = Policy(jnp.dtype(dtype), jnp.dtype(compute), policy.output, policy.state)
    train = msgspec.structs.replace(weights.config.train, precision=str(policy))
    config = msgspec.structs.replace(weights.config, train=train)
    specs = specs_of(config)
    read = _reader(weights, specs)
    return weights._replace(
        config=config, specs=specs, read=lambda name: read(name).astype(specs[name].dtype, copy=False)
    )


def _reader(weights: Weights, specs: Mapping[str, TensorSpec]) -> Callable[[str], np.ndarray]:
    """Gives tensors by their new names, in whatever dtype they are there."""
    there = weights.specs

    @functools.lru_cache(maxsize=1)  # both parts of a matrix are asked for one after the other
    def rounded(name: str) -> Int8Matrix:
        return _rounded(jnp.asarray(weights.read(name)), inputs_first=_inputs_first(name))

    def read(name: str) -> np.ndarray:
        if name in there:
            return weights.read(name)
        if f"{name}.values" in there:
            values, scale = weights.read(f"{name}.values"), weights.read(f"{name}.scale")
            matrix = values.astype(np.float32) * scale[:, None]
            return matrix.T if _inputs_first(name) else matrix
        matrix, _, part = name.rpartition(".")
        return np.asarray(getattr(rounded(matrix), part))

    return read


def _inputs_first(name: str) -> bool:
    """Output channels are the columns of a linear layer and the rows of the model's embedding; see `in_int8`."""
    return name != "embedding.weight"


@functools.partial(jax.jit, static_argnames="inputs_first")
def _rounded(matrix: Array, *, inputs_first: bool) -> Int8Matrix:
    return Int8Matrix.of(matrix, axes=("", ""), inputs_first=inputs_first)
