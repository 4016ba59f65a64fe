"""Writing with a model: prefill, decode, sampling."""

from griffin_eqx.sampling.generate import generate as generate

__all__ = ["generate"]
