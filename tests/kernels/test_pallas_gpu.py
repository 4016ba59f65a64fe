"""The Triton kernels in the interpreter at all widths, and lowered for a GPU that need not be there.

The laws of scans hold them at a width of 3, in `test_linear_scan.py`. The interpreter drops what a kernel writes beside
an array, so the mask is looked at by itself.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from griffin_kernels import gpu_scan
from griffin_kernels.linear_scan import Planar, linear_scan
from griffin_kernels.linear_scan.implementations import BACKWARD, FORWARD
from griffin_kernels.linear_scan.oracle import linear_scan_oracle, linear_scan_vjp_oracle
from griffin_kernels.rg_lru import rg_lru_scan
from jax import ShapeDtypeStruct
from jax.experimental import pallas as pl

from griffin_eqx.verify import assert_close
from griffin_eqx.verify.scan_subject import ScanCase, narrowed, read

pytestmark = pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated")


def arrays(case, shape):
    """`(x, a, h0, reset, dh, dh_last)` in float64 or complex128, with the values that the case's dtype has."""
    rng = np.random.default_rng(case.seed)

    def draw(shape, dtype):
        z = rng.uniform(-1, 1, shape)
        z = z + 1j * rng.uniform(-1, 1, shape) if case.planar else z
        return read(narrowed(case, z, dtype=dtype))

    full, state = [(shape, case.dtype), ((*shape[:-2], shape[-1]), "float32")]
    x, a, h0, dh, dh_last = (draw(*kind) for kind in (full, full, state, full, state))
    return x, a / 2, h0, rng.random(shape[:-1]) < 0.2, dh, dh_last


@pytest.mark.parametrize(
    ("shape", "case"),
    [
        ((1, 1), ScanCase(1)),
        ((2, 5, 65), ScanCase(5)),
        ((1, 8, 128), ScanCase(8, planar=True, reverse=True)),
        ((3, 7, 129), ScanCase(7, dtype="bfloat16", reverse=True)),
        ((2, 3, 257), ScanCase(3, dtype="bfloat16", planar=True)),
    ],
    ids=str,
)
def test_any_width_gives_the_values_and_gradients_of_the_loop_in_float64(shape, case):
    check(shape, case)


def test_groups_as_long_as_on_a_gpu_give_the_values_of_the_loop_in_float64(monkeypatch):
    monkeypatch.setattr(gpu_scan, "STEPS_INTERPRETED", 16)
    check((1, 37, 3), ScanCase(37))


def check(shape, case):
    x, a, h0, reset, dh, dh_last = arrays(case, shape)

    @jax.jit
    def run(x, a, h0, dh, dh_last):
        scan = lambda x, a, h0: linear_scan(  # noqa: E731
            x, a, h0, jnp.asarray(reset), reverse=case.reverse, implementation="pallas_gpu", interpret=True
        )
        out, pull = jax.vjp(scan, x, a, h0)
        return out, pull((dh, dh_last))

    wide = [narrowed(case, z, dtype=np.float32) for z in (h0, dh_last)]
    (h, h_last), back = run(*narrowed(case, x, a), wide[0], *narrowed(case, dh), wide[1])
    want = linear_scan_oracle(x, a, h0, reset, reverse=case.reverse)
    assert_close(read(h), want[0], "h", tol=case.tol)
    assert_close(read(h_last), want[1], "h_last", tol=case.wide_tol)
    pulled = linear_scan_vjp_oracle(x, a, h0, reset, dh, dh_last, reverse=case.reverse)
    assert_close(tuple(map(read, back)), pulled, "cotangents of (x, a, h0)", tol=case.tol)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("width", [1, 3, 63, 65, 127, 129, 2560])
def test_a_mask_leaves_the_channels_of_the_array_and_no_others(width, dtype):
    blocks = gpu_scan.Blocks(width, jnp.dtype(dtype).itemsize)

    def kernel(out):
        mask = blocks.mask()
        out[...] = jnp.ones(blocks.channels, bool) if mask is None else mask

    written = pl.pallas_call(
        kernel,
        grid=(1, blocks.count),
        out_specs=pl.BlockSpec((blocks.channels,), lambda b, c: (c,)),
        out_shape=ShapeDtypeStruct((blocks.count * blocks.channels,), jnp.bool),
        interpret=True,
    )()
    assert written.tolist() == [True] * width + [False] * (blocks.count * blocks.channels - width)


def gpu_mesh():
    """One GPU that need not be there. Newer JAX must be told which, to lower Triton; older JAX takes it for granted."""
    device = getattr(jax.sharding, "AbstractDevice", None)
    which = {}
    if device is not None:
        which["abstract_device"] = device(device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
    return jax.sharding.AbstractMesh((1,), ("gpu",), axis_types=(jax.sharding.AxisType.Auto,), **which)


TRITON = "__gpu$xla.gpu.triton"


def lowered(function, *arguments) -> str:
    """The program for an NVIDIA GPU."""
    unstable = [jax.export.DisabledSafetyCheck.custom_call(TRITON)]
    with jax.sharding.use_abstract_mesh(gpu_mesh()):
        exported = jax.export.export(jax.jit(function), platforms=["cuda"], disabled_checks=unstable)(
            *arguments
        )
    return exported.mlir_module()


def shapes(shape, dtype, planar=False):
    row, state = ShapeDtypeStruct(shape, dtype), ShapeDtypeStruct((shape[0], shape[2]), jnp.float32)
    kind: Any = (lambda z: Planar(z, z)) if planar else lambda z: z
    return kind(row), kind(state), ShapeDtypeStruct(shape[:2], jnp.bool)


def gradient(x, a, h0, dh, dh_last, reset=None, **options):
    out, pull = jax.vjp(lambda x, a, h0: linear_scan(x, a, h0, reset, **options), x, a, h0)
    return out, pull((dh, dh_last))


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("shape", "reverse"), [((8, 2048, 2560), False), ((3, 77, 129), True)])
def test_both_directions_are_one_kernel_each_and_nothing_else_of_size(shape, reverse, dtype, planar):
    row, state, reset = shapes(shape, dtype, planar)
    text = lowered(partial(gradient, reverse=reverse), row, row, state, row, state, reset)
    assert text.count(f"custom_call @{TRITON}") == 2
    # Arrays of rows are not padded, reversed, converted or copied.
    for operation in ("pad", "reverse", "convert", "transpose", "slice", "concatenate"):
        assert f"stablehlo.{operation}" not in text


def test_a_row_of_a_model_is_one_kernel_under_vmap():
    row, state, reset = shapes((4, 256, 640), jnp.bfloat16)
    assert (
        lowered(jax.vmap(gradient), row, row, state, row, state, reset).count(f"custom_call @{TRITON}") == 2
    )


def test_inside_a_checked_shard_map_the_kernels_are_the_same():
    row, state, reset = shapes((4, 256, 640), jnp.bfloat16)
    spec = jax.sharding.PartitionSpec("gpu")
    mapped = jax.shard_map(gradient, mesh=gpu_mesh(), in_specs=spec, out_specs=spec)
    assert lowered(mapped, row, row, state, row, state, reset).count(f"custom_call @{TRITON}") == 2


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(8, 2048, 2560), (3, 77, 129)])
def test_the_fused_rg_lru_is_one_kernel_each_way(shape, dtype):
    row, state, reset = shapes(shape, dtype)

    def run(x, recurrence_gate, input_gate, a_param, h0, reset, valid, dh, dh_last):
        def scan(x, recurrence_gate, input_gate, a_param, h0):
            return rg_lru_scan(x, recurrence_gate, input_gate, a_param, h0, reset, valid)

        out, pull = jax.vjp(scan, x, recurrence_gate, input_gate, a_param, h0)
        return out, pull((dh, dh_last))

    a_param = ShapeDtypeStruct(shape[-1:], jnp.float32)
    text = lowered(run, row, row, row, a_param, state, reset, reset, row, state)
    assert text.count(f"custom_call @{TRITON}") == 2


def test_float16_and_more_than_4_gib_are_lowered():
    row, state, _ = shapes((64, 65536, 2560), jnp.float16)
    assert lowered(gradient, row, row, state, row, state).count(f"custom_call @{TRITON}") == 2


def test_a_single_step_is_left_to_xla_unless_the_kernel_is_named():
    row, state, reset = shapes((8, 1, 2560), jnp.float32)
    assert TRITON not in lowered(linear_scan, row, row, state, reset)
    assert TRITON in lowered(partial(linear_scan, implementation="pallas_gpu"), row, row, state, reset)
    because = "pallas_gpu is slower: a single step is best fused into what stands around it"
    for choice in (
        FORWARD.choose("cuda", row, row, state, reset),
        BACKWARD.choose("cuda", row, state, row, row, state, reset),
    ):
        assert (choice.name, choice.reason) == ("xla", because)


def test_float64_is_refused_with_a_reason():
    with jax.enable_x64(True):
        x = jnp.ones((2, 4, 3), jnp.float64)
        with pytest.raises(NotImplementedError) as caught:
            linear_scan(x, x, implementation="pallas_gpu", interpret=True)
        choice = FORWARD.choose("cuda", x, x, x[:, 0], None)
    assert str(caught.value) == (
        "linear_scan: implementation='pallas_gpu' cannot run this: its state is float32, and float64 asks for "
        "another. Leave implementation out to let the platform choose."
    )
    assert choice.name == "xla"


def test_another_platform_is_refused_unless_interpreted():
    x = jnp.ones((2, 4, 3))
    with pytest.raises(NotImplementedError, match="runs on cuda, and this program is lowered for cpu"):
        linear_scan(x, x, implementation="pallas_gpu")
