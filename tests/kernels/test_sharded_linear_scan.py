"""The scan over meshes of eight virtual devices: the values and gradients of one device, and what it communicates."""

import dataclasses
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from griffin_kernels.linear_scan import Planar, linear_scan, sharded_linear_scan
from griffin_kernels.linear_scan.fold import BACKWARD_FOLD, FORWARD_FOLD
from griffin_kernels.linear_scan.implementations import BACKWARD, FORWARD
from griffin_kernels.linear_scan.oracle import linear_scan_oracle, linear_scan_vjp_oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from griffin_eqx.verify import assert_close, scan_law_tests, tolerance
from griffin_eqx.verify.scan_subject import read
from tests.meshes import MESHES, collectives, make_mesh, over_mesh, place

pytestmark = pytest.mark.core

# All laws where every shard has two neighbours, on lengths that do not divide, with rows split as well.
test_over_2_x_4_x_1 = scan_law_tests(
    partial(over_mesh(sharded_linear_scan, (2, 4, 1)), implementation="xla"), complex=True, reverse=True
)
# And with shards of one or no token, by an implementation that has no fold of its own.
test_over_1_x_8_x_1 = scan_law_tests(
    partial(over_mesh(sharded_linear_scan, (1, 8, 1)), implementation="associative"),
    reverse=True,
    dtypes=("float32",),
)

ROWS, SEQ_LEN, WIDTH = 8, 16, 8
SPEC = P("data", "sequence", "model")
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=4)
"""A program of eight devices takes milliseconds to run, and its devices here share a core or two."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is compiled once."""

    mesh: tuple[int, int, int]
    reverse: bool = False
    planar: bool = False
    dtype: str = "float32"
    vmapped: bool = False
    implementation: str | None = None

    seq_len = SEQ_LEN

    def arrays(self, seed: int) -> tuple[Any, ...]:
        """`(x, a, h0, reset, dh, dh_last)` in float64 or complex128, of values that the dtype has.

        Whole shards of decays 0 and 1 are among them, resets are few enough that some shards have none.
        """
        rng = np.random.default_rng(seed)
        full, state = (ROWS, SEQ_LEN, WIDTH), (ROWS, WIDTH)

        def draw(shape, dtype):
            z = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if self.planar else 0)
            return _rounded(z, dtype)

        a = np.clip(rng.uniform(-0.2, 1.2, full), 0, 1) * (np.exp(1j) if self.planar else 1)
        a = a.reshape(ROWS, 8, -1, WIDTH)
        a[:, rng.integers(8)] = 0
        a[:, rng.integers(8)] = 1
        a = _rounded(a.reshape(full), self.dtype)
        reset = rng.random(full[:2]) < rng.choice([0.0, 0.1])
        wide = "float32"
        return draw(full, self.dtype), a, draw(state, wide), reset, draw(full, self.dtype), draw(state, wide)

    @property
    def tol(self) -> float:
        """As `ScanCase.tol`: three roundings to the dtype beside sums in float32."""
        return 3 * float(jnp.finfo(self.dtype).eps) + tolerance(np.float32, SEQ_LEN)

    @property
    def program(self) -> Any:
        """`(x, a, h0, reset, dh, dh_last)` to `((h, h_last), (dx, da, dh0))`."""
        return _program(self)

    def given(self, x, a, h0, reset, dh, dh_last) -> tuple[Any, ...]:
        """Arrays as the program takes them."""
        x, a, dh = (_narrowed(z, self.dtype) for z in (x, a, dh))
        h0, dh_last = (_narrowed(z, "float32") for z in (h0, dh_last))
        return x, a, h0, jnp.asarray(reset), dh, dh_last

    def run(self, *arrays: Any) -> Any:
        """The program on arrays as `arrays` gives them."""
        return tuple(tuple(read(z) for z in group) for group in self.program(*self.given(*arrays)))


def _narrowed(z, dtype):
    cast = lambda part: jnp.asarray(part, dtype)  # noqa: E731
    return Planar(cast(z.real), cast(z.imag)) if np.iscomplexobj(z) else cast(z)


def _rounded(z, dtype):
    parts = [part.astype(jnp.dtype(dtype)).astype(np.float64) for part in (z.real, z.imag)]
    return parts[0] + 1j * parts[1] if np.iscomplexobj(z) else parts[0]


@lru_cache
def _program(kind: Kind) -> Any:
    def scan(x, a, h0, reset):
        spec = P("sequence", "model") if kind.vmapped else SPEC
        one = partial(
            sharded_linear_scan,
            mesh=make_mesh(kind.mesh),
            spec=spec,
            reverse=kind.reverse,
            implementation=kind.implementation,
        )
        return (jax.vmap(one, spmd_axis_name="data") if kind.vmapped else one)(x, a, h0, reset)

    @jax.jit
    def both(x, a, h0, reset, dh, dh_last):
        out, pull = jax.vjp(lambda x, a, h0: scan(x, a, h0, reset), x, a, h0)
        return out, pull((dh, dh_last))

    return both


def kinds():
    """Every mesh, with half of the other choices each, so that any two choices meet on some mesh."""
    return [
        Kind(mesh, reverse=bool(i % 2), planar=bool(i // 2 % 2), vmapped=bool(i % 3))
        for i, mesh in enumerate(MESHES)
    ]


@pytest.mark.parametrize("kind", kinds(), ids=str)
@given(seed=seeds)
@few
def test_every_mesh_gives_the_values_of_the_loop_in_float64_and_its_gradients(kind, seed):
    x, a, h0, reset, dh, dh_last = kind.arrays(seed)
    want = linear_scan_oracle(x, a, h0, reset, reverse=kind.reverse)
    for name, cotangents in (("h", (dh, 0 * dh_last)), ("h_last", (0 * dh, dh_last))):
        out, back = kind.run(x, a, h0, reset, *cotangents)
        assert_close(out, want, "(h, h_last)", tol=kind.tol)
        want_back = linear_scan_vjp_oracle(x, a, h0, reset, *cotangents, reverse=kind.reverse)
        for argument, dz, expected in zip(("x", "a", "h0"), back, want_back, strict=True):
            assert_close(dz, expected, f"cotangent of {argument} for one of {name} alone", tol=kind.tol)


@given(seed=seeds)
@few
def test_states_between_shards_are_not_rounded_to_the_dtype_of_the_inputs(seed):
    kind = Kind((1, 4, 2), dtype="bfloat16")
    x, a, h0, reset, dh, dh_last = kind.arrays(seed)
    out, back = kind.run(x, a, h0, reset, 0 * dh, dh_last)
    want = linear_scan_oracle(x, a, h0, reset)
    want_back = linear_scan_vjp_oracle(x, a, h0, reset, 0 * dh, dh_last)
    wide = tolerance(np.float32, SEQ_LEN)
    assert_close(out[1], want[1], "h_last of bfloat16 inputs", tol=wide)
    assert_close(back[2], want_back[2], "cotangent of h0 of bfloat16 inputs", tol=wide)
    # One rounding of a state that is exact to float32.
    assert_close(out[0], want[0], "h of bfloat16 inputs", tol=float(jnp.finfo("bfloat16").eps))


@pytest.mark.parametrize(
    "kind",
    [
        Kind((1, 8, 1)),
        Kind((2, 4, 1), reverse=True, implementation="associative"),
        Kind((2, 2, 2), vmapped=True),
    ],
    ids=str,
)
@given(
    seed=seeds,
    place=st.tuples(*(st.integers(0, n - 1) for n in (ROWS, SEQ_LEN, WIDTH))),
    which=st.sampled_from("xad"),
    bad=st.sampled_from([np.nan, np.inf]),
)
@few
def test_what_is_not_finite_stays_where_the_recurrence_sends_it(kind, seed, place, which, bad):
    # Small whole numbers and decays of 0, 1 and 1/2 have no rounding errors, so any difference is a leak.
    rng = np.random.default_rng(seed)
    x, h0, dh, dh_last = (
        np.round(z) for z in np.array_split(rng.uniform(-3, 3, (4 * ROWS, SEQ_LEN, WIDTH)), 4)
    )
    h0, dh_last = h0[:, 0], dh_last[:, 0]
    a = rng.choice([0.0, 0.5, 1.0], x.shape)
    reset = rng.random(x.shape[:2]) < 0.1
    clean = kind.run(x, a, h0, reset, dh, dh_last)
    poisoned = {"x": x.copy(), "a": a.copy(), "d": dh.copy()}
    poisoned[which][place] = bad
    arrays = poisoned["x"], poisoned["a"], h0, reset, poisoned["d"], dh_last
    got = kind.run(*arrays)
    with np.errstate(invalid="ignore"):
        want = (
            linear_scan_oracle(*arrays[:4], reverse=kind.reverse),
            linear_scan_vjp_oracle(*arrays, reverse=kind.reverse),
        )
    for name, z, before, expected in zip(
        ("h", "h_last", "dx", "da", "dh0"),
        *(jax.tree.leaves(tree) for tree in (got, clean, want)),
        strict=True,
    ):
        # An infinity may become NaN between shards, where the sum of two products stands for a product of sums.
        assert (np.isfinite(z) == np.isfinite(expected)).all(), name
        kept = np.isfinite(expected)
        np.testing.assert_array_equal(z[kept], before[kept], name)


@lru_cache
def _grads_of(scan):
    def loss(x, a):
        h, h_last = scan(x, a)
        return (h**2).sum() + (h_last**2).sum()

    return jax.jit(jax.grad(loss, (0, 1)))


def test_without_h0_and_reset():
    x, a, *_ = Kind((1, 1, 1)).arrays(0)
    x, a = jnp.asarray(x, jnp.float32), jnp.asarray(a, jnp.float32)
    sharded = partial(sharded_linear_scan, mesh=make_mesh((2, 2, 2)), spec=SPEC)
    want, got = _grads_of(linear_scan)(x, a), _grads_of(sharded)(x, a)
    assert_close(got, want, "gradients by (x, a)", tol=tolerance(np.float32, SEQ_LEN))


def test_a_mesh_with_explicit_axes_set_for_a_block_of_code():
    mesh = make_mesh((2, 2, 2), AxisType.Explicit)
    x, a, *_ = (jnp.asarray(z, jnp.float32) for z in Kind((1, 1, 1)).arrays(0))
    want = linear_scan(x, a)
    with jax.set_mesh(mesh):
        got = jax.jit(partial(sharded_linear_scan, spec=SPEC))(*place(mesh, (x, a), SPEC))
    assert got[0].sharding.spec == SPEC
    assert_close(got, want, "(h, h_last)", tol=tolerance(np.float32, SEQ_LEN))


def test_without_a_compiler():
    x, a, *_ = (jnp.asarray(z, jnp.float32) for z in Kind((1, 1, 1)).arrays(0))
    got = sharded_linear_scan(x, a, mesh=make_mesh((1, 2, 1)), spec=SPEC)
    assert_close(got, linear_scan(x, a), "(h, h_last)", tol=tolerance(np.float32, SEQ_LEN))


@pytest.mark.parametrize("implementation", ["xla", "associative"])
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_the_scan_of_one_device_runs_in_a_checked_shard_map(implementation, kind):
    mesh, spec = make_mesh((2, 1, 4), kind), P("data", None, "model")
    x, a, h0, *_ = (jnp.asarray(z, jnp.float32) for z in Kind((1, 1, 1)).arrays(0))
    one = h0[:1]
    scan: Any = partial(linear_scan, implementation=implementation)

    def both(x, a, one):  # a default h0, and one that varies less than x
        h, h_last = scan(x, a)
        return h + scan(x, a, jnp.broadcast_to(one, h_last.shape))[0]

    specs = (spec, spec, P(None, "model"))
    mapped = jax.shard_map(both, mesh=mesh, in_specs=specs, out_specs=spec, check_vma=True)
    placed = [place(mesh, z, z_spec) for z, z_spec in zip((x, a, one), specs, strict=True)]
    gradients = [
        jax.jit(jax.grad(lambda *z, run=run: (run(*z) ** 2).sum(), (0, 1, 2)))(*arrays)
        for run, arrays in ((both, (x, a, one)), (mapped, placed))
    ]
    assert_close(gradients[1], gradients[0], "gradients by (x, a, h0)", tol=tolerance(np.float32, SEQ_LEN))


_NEEDS_A_GPU = pytest.mark.skipif(
    jax.__version_info__ >= (0, 11),
    reason="newer JAX lowers Triton without a GPU on an abstract mesh alone, which a mesh of CPU devices excludes",
)


@pytest.mark.parametrize(
    ("implementation", "platform"),
    [("pallas_tpu", "tpu"), pytest.param("pallas_gpu", "cuda", marks=_NEEDS_A_GPU)],
)
def test_kernels_are_lowered_in_a_checked_shard_map(implementation, platform):
    # Lowered only: the interpreters cannot be checked, for they keep arrays of their own.
    scan: Any = partial(linear_scan, implementation=implementation)
    run = jax.shard_map(
        lambda x: scan(x, x)[0], mesh=make_mesh((8, 1, 1)), in_specs=P("data"), out_specs=P("data")
    )
    gradient = jax.jit(jax.grad(lambda x: run(x).sum())).trace(jnp.ones((8, 16, 128)))
    assert gradient.lower(lowering_platforms=(platform,)).as_text().count("custom_call") >= 2


@pytest.mark.parametrize("implementation", list(FORWARD.implementations))
def test_every_implementation_runs_over_a_mesh(implementation):
    x, a, h0, reset, dh, dh_last = Kind((1, 1, 1)).given(*Kind((1, 1, 1)).arrays(1))

    def both(scan):
        @jax.jit
        def run(x, a, h0):
            out, pull = jax.vjp(lambda x, a, h0: scan(x, a, h0, reset), x, a, h0)
            return out, pull((dh, dh_last))

        return run(x, a, h0)

    how: Any = {"implementation": implementation, "interpret": True}
    got = both(partial(sharded_linear_scan, mesh=make_mesh((1, 2, 1)), spec=SPEC, **how))
    for name, one, other in zip(("(h, h_last)", "cotangents"), got, both(linear_scan), strict=True):
        assert_close(one, other, name, tol=tolerance(np.float32, SEQ_LEN))


def test_every_implementation_folds():
    assert FORWARD_FOLD.implementations.keys() == FORWARD.implementations.keys()
    assert BACKWARD_FOLD.implementations.keys() == BACKWARD.implementations.keys()


# What is communicated


def _placed(kind: Kind, *, resets: bool) -> list[Any]:
    specs = (SPEC, SPEC, P("data", "model"), P("data", "sequence"), SPEC, P("data", "model"))
    mesh = make_mesh(kind.mesh)
    placed = [place(mesh, z, spec) for z, spec in zip(kind.given(*kind.arrays(0)), specs, strict=True)]
    if not resets:
        placed[3] = None
    return placed


@pytest.mark.parametrize("vmapped", [False, True])
@pytest.mark.parametrize("mesh", [(8, 1, 1), (1, 1, 8), (2, 1, 4)], ids=str)
def test_over_batch_and_channels_nothing_is_communicated(mesh, vmapped):
    kind = Kind(mesh, vmapped=vmapped)
    assert collectives(kind.program, *_placed(kind, resets=True)) == {}


@pytest.mark.parametrize(
    "kind",
    [
        Kind((1, 8, 1)),
        Kind((2, 4, 1), dtype="bfloat16", reverse=True),
        Kind((2, 2, 2), vmapped=True),
        Kind((1, 4, 2), planar=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("resets", [False, True])
def test_over_the_sequence_one_pair_a_shard_is_communicated_each_way(kind, resets):
    data, sequence, model = kind.mesh
    rows = ROWS // data
    pairs = sequence * 2 * (2 if kind.planar else 1) * rows * WIDTH // model * np.dtype(np.float32).itemsize
    flags = [sequence * rows] if resets else []
    placed = _placed(kind, resets=resets)
    forward = lambda *z: kind.program(*z)[0]  # noqa: E731
    # The backward pass needs the flags as well, and finds them gathered.
    assert collectives(forward, *placed) == {"all-gather": sorted([*flags, pairs])}
    assert collectives(kind.program, *placed) == {"all-gather": sorted([*flags, pairs, pairs])}


def test_a_checkpoint_that_keeps_scans_does_not_communicate_again():
    kind = Kind((1, 4, 2))
    x, a, *_ = _placed(kind, resets=False)

    def layer(x, a):
        scan: Any = sharded_linear_scan
        h, _ = scan(jnp.sin(x), a, mesh=make_mesh(kind.mesh), spec=SPEC)
        return jnp.cos(h)

    policy = jax.checkpoint_policies.save_only_these_names("linear_scan")
    loss = lambda *z: jax.checkpoint(layer, policy=policy)(*z).sum()  # noqa: E731
    found = collectives(jax.grad(loss), x, a)
    assert len(found["all-gather"]) == 2


# What is refused

X = jnp.zeros((4, 8, 6))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"spec": P("sequence", "model")},
            "sharded_linear_scan needs a spec with one entry for each axis of x: got "
            "P('sequence', 'model') for x of shape (4, 8, 6). Write None for an axis that is not split.",
        ),
        (
            {"spec": P("data", "time", None)},
            "sharded_linear_scan got P('data', 'time', None), and the mesh has no axis 'time': its axes "
            "are 'data', 'sequence', 'model'.",
        ),
        (
            {"mesh": (1, 2, 4)},
            "sharded_linear_scan splits axis 2 of x over 4 shards, and its size 6 is no multiple of that: got "
            "P('data', 'sequence', 'model') for x of shape (4, 8, 6). Pad the axis, or leave it whole with "
            "None.",
        ),
        (
            {"mesh": None},
            "sharded_linear_scan needs a mesh: pass mesh=, or call it under `with jax.set_mesh(mesh)`.",
        ),
        ({"h0": jnp.zeros(6)}, "sharded_linear_scan needs h0 of shape (4, 6): got (6,)."),
        (
            {"implementation": "triton"},
            "sharded_linear_scan has no implementation='triton': choose one of "
            f"{', '.join(FORWARD.implementations)}, or None.",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, text):
    arguments = {"spec": SPEC, "mesh": (2, 2, 2)} | arguments
    if arguments["mesh"] is not None:
        arguments["mesh"] = make_mesh(arguments["mesh"])
    with pytest.raises(ValueError) as caught:
        sharded_linear_scan(X, X, **arguments)
    assert str(caught.value) == text
