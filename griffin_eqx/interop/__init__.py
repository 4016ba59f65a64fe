"""Weights in from other programs and out to them: one file a format, and one common form between them."""

from griffin_eqx.interop.convert import convert as convert
from griffin_eqx.interop.convert import open_weights as open_weights
from griffin_eqx.interop.convert import save as save
from griffin_eqx.interop.convert import write as write
from griffin_eqx.interop.trees import from_flax as from_flax
from griffin_eqx.interop.trees import from_torch as from_torch
from griffin_eqx.interop.trees import to_flax as to_flax
from griffin_eqx.interop.trees import to_torch as to_torch
from griffin_eqx.interop.weights import Origin as Origin
from griffin_eqx.interop.weights import Weights as Weights
from griffin_eqx.interop.weights import to_model as to_model

__all__ = [
    "Origin",
    "Weights",
    "convert",
    "from_flax",
    "from_torch",
    "open_weights",
    "save",
    "to_flax",
    "to_model",
    "to_torch",
    "write",
]
