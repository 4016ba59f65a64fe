"""Meshes are read from text, and every misreading is one error with its place."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin_eqx.mesh import AXES, MeshError, MeshShape, meshes, parse_mesh

pytestmark = pytest.mark.core

sizes = st.integers(1, 999_999)


@given(sizes, sizes, sizes)
def test_a_mesh_survives_being_written_and_read(data, sequence, model):
    shape = MeshShape(data, sequence, model)
    assert parse_mesh(str(shape)) == shape


@given(st.permutations([("data", 2), ("sequence", 3), ("model", 4)]), st.integers(1, 3))
def test_order_does_not_matter_and_what_is_left_out_is_one(named, count):
    given = dict(named[:count])
    shape = parse_mesh(" , ".join(f"{axis} = {size}" for axis, size in given.items()))
    assert shape == MeshShape(**given)


@given(st.text(max_size=30) | st.from_regex(r"\A(data|model|rows)=-?\d{0,8}(,data=2)?\Z"))
def test_whatever_is_typed_is_a_mesh_or_one_error(text):
    with contextlib.suppress(MeshError):
        assert all(1 <= size < 10**6 for size in parse_mesh(text))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("data=2,modle=4", "Did you mean model?"),
        ("rows=2", "The axes are data, sequence, model."),
        ("data=2,data=2", "named twice"),
        ("data=0", "got '0'"),
        ("data=-1", "got '-1'"),
        ("data", "got ''"),
        ("data=²", "got '²'"),
        ("", "There is no mesh axis ''"),
    ],
)
def test_a_mistake_says_what_and_where(text, part):
    with pytest.raises(MeshError, match="--mesh") as raised:
        parse_mesh(text)
    assert part in str(raised.value)


@given(st.integers(1, 200))
def test_all_meshes_of_a_number_of_devices(count):
    shapes = meshes(count)
    assert len(set(shapes)) == len(shapes)
    assert all(shape.num_devices == count for shape in shapes)
    wanted = sum(count % (d * s) == 0 for d in range(1, count + 1) for s in range(1, count // d + 1))
    assert len(shapes) == wanted
    assert MeshShape._fields == AXES
