"""The implementations by name, and which of them a platform runs when none is named."""

from griffin_kernels.linear_scan.steps import slower_for_one_step
from griffin_kernels.operation import Implementation, Operation
from griffin_kernels.rg_lru import pallas_gpu, pallas_tpu, xla

_PREFERRED = {"": ("xla",), "tpu": ("pallas_tpu", "xla"), "cuda": ("pallas_gpu", "xla")}


def _kernel(run, platform, module):
    return Implementation(run, (platform,), True, module.refuses, slower_for_one_step)


FORWARD = Operation(
    "rg_lru",
    {
        "xla": Implementation(xla.forward),
        "pallas_tpu": _kernel(pallas_tpu.forward, "tpu", pallas_tpu),
        "pallas_gpu": _kernel(pallas_gpu.forward, "cuda", pallas_gpu),
    },
    _PREFERRED,
    outputs=lambda x, recurrence_gate, input_gate, a_param, h0, reset, valid: (x, h0),
)
"""`(x, recurrence_gate, input_gate, a_param, h0, reset, valid, *, c)` to `(h, h_last)`; a_param is shaped as h0."""

BACKWARD = Operation(
    "rg_lru_backward",
    {
        "xla": Implementation(xla.backward),
        "pallas_tpu": _kernel(pallas_tpu.backward, "tpu", pallas_tpu),
        "pallas_gpu": _kernel(pallas_gpu.backward, "cuda", pallas_gpu),
    },
    _PREFERRED,
    outputs=lambda dh, dh_last, x, recurrence_gate, input_gate, a_param, h, h0, reset, valid: (
        x,
        recurrence_gate,
        input_gate,
        a_param,
        h0,
    ),
)
"""`(dh, dh_last, x, ..., a_param, h, h0, reset, valid, *, c)` to the cotangents of x, gates, a_param and h0."""

IMPLEMENTATIONS: tuple[str, ...] = tuple(FORWARD.implementations)
