"""The implementations by name, which of them a platform runs when none is named, and the derivative."""

from jax.ad_checkpoint import checkpoint_name

from griffin_kernels.gated_rg_lru import composed, pallas_tpu
from griffin_kernels.linear_scan.steps import slower_for_one_step
from griffin_kernels.operation import Implementation, Operation

_PREFERRED = {"": ("composed",), "tpu": ("pallas_tpu", "composed")}


def _kernel(run, refuses):
    return Implementation(run, ("tpu",), True, refuses, slower_for_one_step)


FORWARD = Operation(
    "gated_rg_lru",
    {
        "composed": Implementation(composed.forward),
        "pallas_tpu": _kernel(pallas_tpu.forward, pallas_tpu.refuses),
    },
    _PREFERRED,
    outputs=lambda x, recurrence_gate, input_gate, a_param, h0, reset, valid: (x, h0),
    shared=(1, 2, 3),
)
"""`(x, (weight, bias), (weight, bias), a_param, h0, reset, valid, *, c)` to `(h, h_last)`."""

BACKWARD = Operation(
    "gated_rg_lru_backward",
    {
        "composed": Implementation(composed.backward),
        "pallas_tpu": _kernel(pallas_tpu.backward, pallas_tpu.refuses_backward),
    },
    _PREFERRED,
    outputs=lambda dh, dh_last, x, recurrence_gate, input_gate, a_param, h, h0, reset, valid: (
        x,
        recurrence_gate,
        input_gate,
        a_param,
        h0,
    ),
    shared=(3, 4, 5),
    sums=True,
)
"""`(dh, dh_last, x, ..., a_param, h, h0, reset, valid, *, c)` to the cotangents of x, gates, a_param and h0."""


def _saved(arguments, results):
    x, recurrence_gate, input_gate, a_param, h0, reset, valid = arguments
    h, h_last = results
    # Named, so that a `jax.checkpoint` policy can keep it: running the scan again is what costs most.
    h = checkpoint_name(h, "linear_scan")
    return (x, recurrence_gate, input_gate, a_param, h, h0, reset, valid), (h, h_last)


FORWARD.differentiated_by(BACKWARD, _saved)

IMPLEMENTATIONS: tuple[str, ...] = tuple(FORWARD.implementations)
