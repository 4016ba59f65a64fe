"""The implementations by name, and which of them a platform runs when none is named."""

from griffin_kernels.linear_scan import associative, pallas_gpu, pallas_tpu, reference, xla
from griffin_kernels.linear_scan.adjoint import backward_of, forward_of
from griffin_kernels.linear_scan.steps import slower_for_one_step
from griffin_kernels.operation import Implementation, Operation

_PREFERRED = {"": ("xla",), "tpu": ("pallas_tpu", "xla"), "cuda": ("pallas_gpu", "xla")}


def _kernel(run, platform, module):
    return Implementation(run, (platform,), True, module.refuses, slower_for_one_step)


FORWARD = Operation(
    "linear_scan",
    {
        "reference": Implementation(forward_of(reference.scan)),
        "xla": Implementation(xla.forward),
        "associative": Implementation(forward_of(associative.scan)),
        "pallas_tpu": _kernel(pallas_tpu.forward, "tpu", pallas_tpu),
        "pallas_gpu": _kernel(pallas_gpu.forward, "cuda", pallas_gpu),
    },
    _PREFERRED,
    outputs=lambda x, a, h0, reset: (x, h0),
)
"""`(x, a, h0, reset, *, reverse)` to `(h, h_last)`."""

BACKWARD = Operation(
    "linear_scan_backward",
    {
        "reference": Implementation(backward_of(reference.scan)),
        "xla": Implementation(xla.backward),
        "associative": Implementation(backward_of(associative.scan)),
        "pallas_tpu": _kernel(pallas_tpu.backward, "tpu", pallas_tpu),
        "pallas_gpu": _kernel(pallas_gpu.backward, "cuda", pallas_gpu),
    },
    _PREFERRED,
    outputs=lambda dh, dh_last, a, h, h0, reset: (dh, a, h0),
)
"""`(dh, dh_last, a, h, h0, reset, *, reverse)` to `(dx, da, dh0)`."""

IMPLEMENTATIONS: tuple[str, ...] = tuple(FORWARD.implementations)
