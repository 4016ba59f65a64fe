"""The law of placement: over a mesh of devices a block is what it is on one."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from griffin_eqx.block import SequenceLayout
from griffin_eqx.mesh import MeshShape, meshes
from griffin_eqx.sharding import MESH_AXIS, fits, make_mesh, rows_axis, shardings
from griffin_eqx.verify.comparison import assert_close
from griffin_eqx.verify.law import Law
from griffin_eqx.verify.sequence_laws import SAME_PROGRAM, TOLERANCE
from griffin_eqx.verify.strategies import MeshCase, seeds
from griffin_eqx.verify.subject import Subject, empty_cache, inner

DEVICES = 8
"""How many a mesh has at most."""

ROWS = 8
BEFORE, EVEN, UNEVEN = 8, 16, 17
"""Tokens of a first chunk; of a row that starts anew, which meshes divide; of a second chunk, which none does."""


def too_few_devices() -> str:
    """Why this program cannot try the law; empty where it can."""
    if jax.device_count() > 1:
        return ""
    return "this program has one device; jax.config.update('jax_num_cpu_devices', 8) before JAX starts gives it more"


def _shapes(subject: Subject) -> list[MeshShape]:
    """The meshes that divide the block, those that split most axes first: what shrinks, shrinks to those."""
    count = 1 << min(DEVICES, jax.device_count()).bit_length() - 1
    block = subject.fresh
    cache = eqx.filter_eval_shape(lambda: _of_rows(empty_cache(block)))
    fitting = [
        shape for shape in meshes(count) if fits(block, shape) and fits(cache, shape, leading=("batch",))
    ]
    return sorted(fitting, key=max)


def _of_rows(tree: Any) -> Any:
    return jax.tree.map(lambda z: jnp.broadcast_to(z, (ROWS, *jnp.shape(z))), tree)


def _cases(subject: Subject) -> st.SearchStrategy[MeshCase]:
    shapes = st.sampled_from([tuple(shape) for shape in _shapes(subject)])
    return st.builds(MeshCase, shapes, st.booleans(), seeds)


def _placement(subject: Subject, case: MeshCase) -> None:
    shape, rng = MeshShape(*case.mesh), np.random.default_rng(case.seed)
    block, cache, before = subject.block(rng), None, np.full(ROWS, -1)
    if case.carried:
        first = _chunks(subject, rng, BEFORE, before, padding=0)
        cache = _forward(block, *first, _of_rows(empty_cache(block)))
        before = np.asarray(first[1])[:, -1]
    xs, positions, lengths = _chunks(subject, rng, UNEVEN if case.carried else EVEN, before, padding=5)
    drawn = lambda z: jnp.asarray(rng.standard_normal(z.shape), z.dtype)  # noqa: E731
    tokens = np.arange(xs.shape[1]) < np.asarray(lengths)[:, None]
    dys = jnp.where(tokens[..., None], drawn(xs), 0)
    dcaches = jax.tree.map(drawn, eqx.filter(cache, eqx.is_inexact_array))
    want = _both(block, xs, cache, positions, lengths, dys, dcaches)
    mesh = make_mesh(shape)
    xs, positions, lengths, dys = (_over_rows(z, mesh) for z in (xs, positions, lengths, dys))
    cache, dcaches = (_laid(z, mesh, leading=("batch",)) for z in (cache, dcaches))
    with jax.set_mesh(mesh):
        got = _both(_laid(block, mesh), xs, cache, positions, lengths, dys, dcaches)
    names = "outputs", "cache", "gradients of (parameters, x, cache)"
    for name, here, there in zip(names, want, got, strict=True):
        assert_close(there, here, f"{name} over the mesh {shape}", tol=TOLERANCE)


def _chunks(subject, rng, seq_len, before, *, padding):
    """Rows that go on from the positions before them up to a border, with padding behind some."""
    starts = rng.random((ROWS, seq_len)) < 0.15
    starts[:, 0] |= before < 0
    positions = np.zeros((ROWS, seq_len), np.int32)
    for t in range(seq_len):
        before = np.where(starts[:, t], 0, before + 1)
        positions[:, t] = before
    length = seq_len - rng.integers(0, padding + 1, ROWS)
    xs = rng.standard_normal((ROWS, seq_len, subject.dims.width)).astype(np.float32)
    return jnp.asarray(xs), jnp.asarray(positions), jnp.asarray(length, jnp.int32)


def _laid(tree, mesh, **named):
    arrays, rest = eqx.partition(tree, eqx.is_array)
    return eqx.combine(jax.device_put(arrays, shardings(arrays, mesh, **named)), rest)


def _over_rows(z, mesh):
    """Rows over `data`, tokens over `sequence` where it divides them."""
    axes = [MESH_AXIS["batch"]]
    if z.ndim > 1 and z.shape[1] % mesh.shape[MESH_AXIS["seq_len"]] == 0:
        axes.append(MESH_AXIS["seq_len"])
    return jax.device_put(z, NamedSharding(mesh, PartitionSpec(*axes)))


def _rows(block, xs, positions, lengths, caches):
    def row(x, positions, length, cache):
        return block(x, SequenceLayout(positions, length), cache)

    rows: Any = jax.vmap(row, spmd_axis_name=rows_axis(ROWS))
    return rows(xs, positions, lengths, caches)


@eqx.filter_jit
def _forward(block, xs, positions, lengths, caches) -> Any:
    return _rows(block, xs, positions, lengths, caches)[1]


@eqx.filter_jit
def _both(block, xs, caches, positions, lengths, dys, dcaches) -> Any:
    """`(outputs at tokens, cache, gradients)`."""

    @eqx.filter_grad(has_aux=True)
    def gradients(moving):
        block, xs, caches = moving
        ys, caches = _rows(block, xs, positions, lengths, caches)
        return inner(dys, ys) + inner(dcaches, caches), (ys, caches)

    slopes, (ys, caches) = gradients((block, xs, caches))
    tokens = jnp.arange(ys.shape[1])[None, :] < lengths[:, None]
    return jnp.where(tokens[..., None], ys, 0), caches, slopes


placement = Law(
    "placement",
    "vmap(block)(xs) = vmap(block)(xs) with parameters, rows, tokens and caches split over a mesh as annotations say, "
    "gradients by parameters, xs and caches alike, for every mesh of up to 8 devices that divides the block, rows "
    "that go on from a cache and lengths that leave shards uneven",
    SAME_PROGRAM,
    _cases,
    _placement,
    most=3,
    impossible=too_few_devices,
)
