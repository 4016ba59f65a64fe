"""The implementations by name, and which of them a platform runs when none is named."""

from griffin_kernels.cg_lru import composed, pallas_tpu
from griffin_kernels.linear_scan.steps import slower_for_one_step
from griffin_kernels.operation import Implementation, Operation

_PREFERRED = {"": ("composed",), "tpu": ("pallas_tpu", "composed")}


def _kernel(run):
    return Implementation(run, ("tpu",), True, pallas_tpu.refuses, slower_for_one_step)


FORWARD = Operation(
    "cg_lru",
    {"composed": Implementation(composed.forward), "pallas_tpu": _kernel(pallas_tpu.forward)},
    _PREFERRED,
    outputs=lambda x, recurrence_gate, input_gate, a_param, theta, h0, reset, valid: (x, h0),
)
"""`(x, gates, a_param, theta, h0, reset, valid, *, c)` to `(h, h_last)`; parameters are shaped as a part of h0."""

BACKWARD = Operation(
    "cg_lru_backward",
    {"composed": Implementation(composed.backward), "pallas_tpu": _kernel(pallas_tpu.backward)},
    _PREFERRED,
    outputs=lambda dh, dh_last, x, recurrence_gate, input_gate, a_param, theta, h, h0, reset, valid: (
        x,
        recurrence_gate,
        input_gate,
        a_param,
        theta,
        h0,
    ),
)
"""`(dh, dh_last, x, ..., theta, h, h0, reset, valid, *, c)` to the cotangents of x, gates, parameters and h0."""

IMPLEMENTATIONS: tuple[str, ...] = tuple(FORWARD.implementations)
