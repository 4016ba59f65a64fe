"""A tokenizer's file stays with the weights."""

import pytest

import griffin_eqx as gx
from griffin_eqx.data import open_tokenizer
from griffin_eqx.errors import WeightsError
from griffin_eqx.interop import folder
from griffin_eqx.interop.weights import of_model
from tests import tokenizer_files


def test_a_tokenizer_travels_along_and_its_change_is_told(make_config, random_model, tmp_path):
    source = tmp_path / "tokenizer.json"
    tokenizer_files.byte_level(tmp_path, vocab_size=300).rename(source)
    config, path = make_config(vocab_size=300), tmp_path / "w"
    path.mkdir()
    folder.write(of_model(random_model(config), config, tokenizer=source), path)
    tokenizer = gx.load(path).tokenizer
    assert tokenizer is not None
    assert tokenizer.digest == open_tokenizer(source).digest
    (path / "tokenizer.json").write_text('{"model": {"x": 1}}')
    with pytest.raises(WeightsError, match="not the one that the weights were written with"):
        gx.load(path)
    (path / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        gx.load(path)
