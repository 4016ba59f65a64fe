"""The safetensors files written here are those of the `safetensors` package, and damage is told."""

import json
import math

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from griffin_eqx.errors import WeightsError
from griffin_eqx.interop.tensor_file import DTYPES, TensorFile, TensorSpec, write

pytestmark = pytest.mark.core


@st.composite
def tensors(draw):
    names = draw(st.lists(st.text(min_size=1, max_size=12), unique=True, max_size=5))
    made = {}
    for name in (name for name in names if name != "__metadata__"):
        shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
        dtype = np.dtype(DTYPES[draw(st.sampled_from(sorted(DTYPES)))])
        size = math.prod(shape) * dtype.itemsize
        raw = draw(st.binary(min_size=size, max_size=size))
        raw = bytes(byte & 1 for byte in raw) if dtype == np.bool_ else raw
        made[name] = np.frombuffer(raw, dtype).reshape(shape)
    return made


def _write(path, arrays, metadata=None):
    specs = {name: TensorSpec(array.shape, array.dtype) for name, array in arrays.items()}
    write(path, specs, arrays.__getitem__, metadata)


def _same(one, other):
    return {k: (v.dtype, v.shape, v.tobytes()) for k, v in one.items()} == {
        k: (v.dtype, v.shape, v.tobytes()) for k, v in other.items()
    }


@settings(settings.get_profile("fuzz"))
@given(tensors(), st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2))
def test_what_is_written_is_read_bit_for_bit(tmp_path_factory, arrays, metadata):
    path = tmp_path_factory.mktemp("file") / "x.safetensors"
    _write(path, arrays, metadata)
    file = TensorFile(path)
    assert _same({name: file.read(name) for name in file.specs}, arrays)
    assert file.metadata == metadata


@given(tensors())
def test_the_package_reads_what_is_written_and_the_other_way_round(tmp_path_factory, arrays):
    arrays = {name: array for name, array in arrays.items() if array.dtype != ml_dtypes.bfloat16}
    path = tmp_path_factory.mktemp("file") / "x.safetensors"
    _write(path, arrays)
    assert _same(safetensors.numpy.load_file(path), arrays)
    safetensors.numpy.save_file(arrays, path)
    file = TensorFile(path)
    assert _same({name: file.read(name) for name in file.specs}, arrays)


@settings(settings.get_profile("fuzz"))
@given(st.data())
def test_a_damaged_header_is_one_typed_error_and_never_a_larger_claim(tmp_path_factory, data):
    """Whatever the package refuses is refused; what is read agrees with it."""
    path = tmp_path_factory.mktemp("file") / "x.safetensors"
    _write(path, {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.int8)})
    raw = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(raw[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(raw), *range(0, len(raw), 7)]))
    path.write_bytes(raw[:cut])
    try:
        theirs = safetensors.numpy.load_file(path)
    except (SafetensorError, KeyError, ValueError, OverflowError):
        theirs = None
    problem, ours = None, {}
    try:
        file = TensorFile(path)
        ours = {name: file.read(name) for name in file.specs}
    except WeightsError as error:
        problem = str(error)
    if problem is not None:
        assert len(problem.splitlines()) == 3
        assert str(path) in problem
        return
    if theirs is not None:
        assert _same(ours, theirs)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}, "does not take the 8 bytes"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 2**62]}, "does not take"),
        ({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}, "lists of sizes"),
        ({"dtype": "F32", "shape": [True, 2], "data_offsets": [0, 8]}, "lists of sizes"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}, "it begins at byte 8 where 0 is due"),
        ({"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}, "is not read here"),
        ({"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}, "is not read here"),
        ({"dtype": "F32", "shape": [2]}, "has not dtype, shape and data_offsets"),
        ([1, 2], "has not dtype, shape and data_offsets"),
    ],
)
def test_impossible_entries_are_named(tmp_path, entry, said):
    path = tmp_path / "x.safetensors"
    header = json.dumps({"the.tensor": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(WeightsError) as caught:
        TensorFile(path)
    assert said in str(caught.value)
    assert "the.tensor" in str(caught.value)


def test_other_damage_is_named(tmp_path):
    path = tmp_path / "x.safetensors"
    for raw, said in [
        (b"", "ends before its header"),
        (b"\xff" * 8, "ends before its header"),
        (b"\x02" + bytes(7) + b"[]", "it is no table"),
        (b"\x02" + bytes(7) + b"[[", "cannot be read"),
        ((40).to_bytes(8, "little") + b"[" * 40, "cannot be read"),
        (
            (23).to_bytes(8, "little") + b'{"__metadata__":{"a":1}}',
            "has not|cannot be read|no table of strings",
        ),
    ]:
        path.write_bytes(raw)
        with pytest.raises(WeightsError, match=said):
            TensorFile(path)
    twice = b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
    path.write_bytes(len(twice).to_bytes(8, "little") + twice)
    with pytest.raises(WeightsError, match="a name comes twice"):
        TensorFile(path)
    with pytest.raises(WeightsError, match="cannot be read"):
        TensorFile(tmp_path / "missing")


def test_a_file_cut_off_between_header_and_tensor_is_told(tmp_path):
    path = tmp_path / "x.safetensors"
    _write(path, {"a": np.arange(100, dtype=np.float32)})
    file = TensorFile(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(WeightsError, match="a is damaged: the file was cut off"):
        file.read("a")


def test_a_tensor_that_is_not_what_was_announced_is_a_mistake_of_the_caller(tmp_path):
    with pytest.raises(ValueError, match=r"a is float32\[2\] where float32\[3\] was announced"):
        write(
            tmp_path / "x", {"a": TensorSpec((3,), np.dtype(np.float32))}, lambda name: np.ones(2, np.float32)
        )
