"""The implementations by name, and which of them a platform runs when none is named."""

from griffin_kernels.linear_scan import associative, pallas_gpu, reference, xla
from griffin_kernels.linear_scan.adjoint import backward_of, forward_of
from griffin_kernels.operation import Implementation, Operation

_PREFERRED = {"": ("xla",), "cuda": ("pallas_gpu", "xla")}


def _gpu(run):
    return Implementation(run, ("cuda",), True, pallas_gpu.refuses, pallas_gpu.slower)


FORWARD = Operation(
    "linear_scan",
    {
        "reference": Implementation(forward_of(reference.scan)),
        "xla": Implementation(xla.forward),
        "associative": Implementation(forward_of(associative.scan)),
        "pallas_gpu": _gpu(pallas_gpu.forward),
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
        "pallas_gpu": _gpu(pallas_gpu.backward),
    },
    _PREFERRED,
    outputs=lambda dh, dh_last, a, h, h0, reset: (dh, a, h0),
)
"""`(dh, dh_last, a, h, h0, reset, *, reverse)` to `(dx, da, dh0)`."""

IMPLEMENTATIONS: tuple[str, ...] = tuple(FORWARD.implementations)
