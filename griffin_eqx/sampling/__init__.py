"""Reading prompts and writing on: prefill, decoding, sampling, beams, sessions that can be kept."""

from griffin_eqx.sampling.engine import Engine as Engine
from griffin_eqx.sampling.engine import Written as Written
from griffin_eqx.sampling.generate import generate as generate
from griffin_eqx.sampling.samplers import Sampling as Sampling
from griffin_eqx.sampling.session import Session as Session

__all__ = ["Engine", "Sampling", "Session", "Written", "generate"]
