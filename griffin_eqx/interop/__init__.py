"""Weights in from other programs and out to them: one file a format, and one common form between them."""

from griffin_eqx.interop.convert import save as save
from griffin_eqx.interop.weights import Origin as Origin
from griffin_eqx.interop.weights import Weights as Weights

__all__ = ["Origin", "Weights", "save"]
