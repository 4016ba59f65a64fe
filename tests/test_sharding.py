"""Arrays lie on a mesh as their shape annotations say: parameters, optimizer state, caches, a stranger's block."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Array, Float

import griffin_eqx as gx
from griffin_eqx.mesh import AXES, MeshError, MeshShape, meshes, parse_mesh
from griffin_eqx.model import LanguageModel
from griffin_eqx.nn import Linear
from griffin_eqx.sharding import MESH_AXIS, fits, make_mesh, place, shardings
from griffin_eqx.summary import with_vocabulary
from griffin_eqx.training.objective import init_batch_cache
from griffin_eqx.training.step import init_state
from tests.models import divisible as config

pytestmark = pytest.mark.core

BLOCKS = ("rg_lru", "cg_lru", "local_mqa", "global_mqa")
SHAPES_OF_EIGHT = meshes(8)


def abstract_state(name: str):
    return eqx.filter_eval_shape(lambda: init_state(with_vocabulary(gx.preset(name)), key=jax.random.key(0)))


@pytest.mark.parametrize("name", ["griffin-tiny", "hawk-1.3b", "griffin-14b", "mqa-7b", "recurrentgemma-9b"])
def test_every_array_of_a_model_is_named_and_its_optimizer_state_lies_as_it_does(name):
    state = abstract_state(name)
    shape = MeshShape(2, 1, 2)
    parameters = place(state.model, shape)
    assert all(each.axes is not None and not each.unknown for each in parameters)
    for moment in (state.optimizer[1].mu, state.optimizer[1].nu):
        assert [each.spec for each in place(moment, shape)] == [each.spec for each in parameters]


@pytest.mark.parametrize("block", BLOCKS)
def test_every_matrix_of_a_block_is_split_over_all_devices_of_data_and_model(block):
    model = eqx.filter_eval_shape(LanguageModel.init, config(f"{block}*3").model, key=jax.random.key(0))
    whole = {
        "kv_heads",
        "gate_blocks",
        "conv_width",
    }  # one head, block-diagonal gates and convs have no width
    for each in place(model, MeshShape(2, 1, 4)):
        assert each.axes is not None
        if len(each.axes) > 2 and not whole & set(each.axes):
            assert set(each.spec) == {None, "data", "model"}, each
            assert each.parts == 8


def test_caches_are_split_over_rows_and_channels():
    model = eqx.filter_eval_shape(
        LanguageModel.init, config("rg_lru*2 local_mqa cg_lru").model, key=jax.random.key(0)
    )
    cache = eqx.filter_eval_shape(lambda model: init_batch_cache(model, 4, 32), model)
    placed = {
        each.path.rsplit(".", 1)[1]: each
        for each in place(cache, MeshShape(2, 1, 4), leading=("batch", "num_layers"))
    }
    assert placed["h"].axes == ("batch", "num_layers", "lru_width")
    assert placed["h"].spec == ("data", None, "model")
    assert placed["keys"].axes == ("batch", "slots", "kv_heads", "head_dim")
    assert placed["keys"].spec == ("data", None, None, None)
    assert placed["h_re"].spec == ("data", "model")


def test_what_is_told_is_where_arrays_lie():
    model = LanguageModel.init(config("rg_lru*2 cg_lru local_mqa global_mqa").model, key=jax.random.key(0))
    arrays = eqx.filter(model, eqx.is_array)
    for shape in SHAPES_OF_EIGHT:
        laid = jax.device_put(arrays, shardings(model, make_mesh(shape)))
        for told, before, after in zip(
            place(model, shape), jax.tree.leaves(arrays), jax.tree.leaves(laid), strict=True
        ):
            pieces = after.addressable_shards
            assert {piece.data.nbytes for piece in pieces} == {told.bytes_per_device}
            assert told.parts == len({str(piece.index) for piece in pieces})
            np.testing.assert_array_equal(before, after)


class Foreign(eqx.Module):
    """A stranger's layer: a hint that is a string, an unknown name, none at all, several arrays in one field."""

    written: "Float[Array, 'width lru_width']"
    strange: Float[Array, "lru_width quux"]
    bare: jax.Array
    several: tuple[Float[Array, " width"], ...]
    missing: "Float[Nowhere, 'width']"  # noqa: F821 # pyright: ignore[reportUndefinedVariable]
    linear: Linear
    twice: Float[Array, "width width"]

    @classmethod
    def of(cls, size: int) -> "Foreign":
        matrix, row = jnp.zeros((size, size)), jnp.zeros(size)
        linear = Linear.init(size, size, axes=("lru_width", "head_dim"), bias=True, key=jax.random.key(0))
        return cls(matrix, matrix, matrix, (row, row), row, linear, matrix)


def test_a_strangers_arrays_are_placed_by_their_annotations_and_what_cannot_be_read_is_whole():
    placed = {each.path: each for each in place(Foreign.of(8), MeshShape(2, 1, 4))}
    assert placed[".written"].spec == ("data", "model")
    assert placed[".strange"].spec == ("model", None)
    assert placed[".strange"].unknown == ("quux",)
    for path in (".bare", ".several[0]", ".several[1]", ".missing"):
        assert placed[path].axes is None
        assert placed[path].parts == 1
    assert placed[".linear.weight"].spec == ("model", None)
    assert placed[".linear.bias"].axes == ("head_dim",)
    assert placed[".twice"].spec == ("data", None)  # the leftmost has the mesh axis


@given(
    st.sampled_from(SHAPES_OF_EIGHT + meshes(6) + meshes(12)),
    st.sampled_from([16, 24, 40, 64]),
    st.sampled_from([2, 4, 8]),
)
def test_a_mesh_that_divides_nothing_is_refused_with_ones_that_work(shape, width, blocks):
    base = config("rg_lru local_mqa")
    options = {"rg_lru": {"gate_blocks": blocks}, "local_mqa": {"head_dim": 8}}
    model = msgspec.structs.replace(base.model, width=width, lru_width=width, mlp_width=48, blocks=options)
    abstract = eqx.filter_eval_shape(LanguageModel.init, model, key=jax.random.key(0))
    wide = (width, 48, blocks, width // 8, 384)
    divides = width % shape.data == 0 and all(size % shape.model == 0 for size in wide)
    assert fits(abstract, shape) == divides
    if divides:
        assert len(place(abstract, shape)) == len(jax.tree.leaves(abstract))
        return
    with pytest.raises(MeshError) as raised:
        place(abstract, shape)
    lines = str(raised.value).splitlines()
    assert lines[0] == f"The mesh {shape} cannot divide these axes:"
    near = lines[-1].partition(":")[2].split()
    assert near  # all devices along the sequence always work
    for text in near:
        assert parse_mesh(text).num_devices == shape.num_devices
        assert fits(abstract, parse_mesh(text))


def test_a_head_is_never_cut():
    model = eqx.filter_eval_shape(
        LanguageModel.init, gx.preset("recurrentgemma-2b").model, key=jax.random.key(0)
    )
    with pytest.raises(
        MeshError, match=r"num_heads = 10 \(2560 channels\) over model=4|gate_blocks = 10 over"
    ):
        place(model, MeshShape(1, 1, 4))


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(MeshError, match="The mesh data=64 has 64 devices and this program 8"):
        make_mesh(MeshShape(64))


@dataclasses.dataclass(frozen=True)
class Chip:
    """What JAX asks of a TPU's chip to lay a mesh over a torus of them."""

    id: int
    coords: tuple[int, ...]
    device_kind: str
    platform: str = "tpu"
    core_on_chip: int = 0
    process_index: int = 0
    slice_index: int = 0


@pytest.mark.parametrize("kind", ["TPU v5 lite", "TPU v6 lite", "TPU v5"])
@pytest.mark.parametrize("torus", [(4, 4, 1), (2, 4, 1), (2, 4, 4), (4, 4, 4)])
def test_a_torus_takes_every_mesh_of_its_chips(kind, torus):
    chips = [Chip(i, tuple(map(int, np.unravel_index(i, torus))), kind) for i in range(math.prod(torus))]
    for shape in meshes(len(chips)):
        laid = make_mesh(shape, chips).devices
        assert laid.shape == tuple(shape)
        assert {chip.id for chip in laid.flat} == set(range(len(chips)))


def test_the_table_names_axes_of_the_mesh():
    assert set(MESH_AXIS.values()) <= set(AXES)
