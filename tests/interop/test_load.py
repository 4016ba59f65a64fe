"""Other programs' folders are read where ours are: no conversion has to come first."""

import pytest

import griffin_eqx as gx
from griffin_eqx import interop

pytestmark = pytest.mark.core


def test_a_folder_of_hugging_faces_is_loaded_and_judged_as_ours(tmp_path, make_config, random_model, arrays):
    config = make_config(vocab_size=257, embedding_scale=True, logit_soft_cap=30.0)
    ours = interop.save(random_model(config), config, tmp_path / "ours")
    theirs = interop.convert(ours, tmp_path / "theirs", to="hf")
    (tmp_path / "text.txt").write_text("To be, or not to be, that is the question. " * 8)
    for decoding in (False, True):
        assert arrays(gx.load(theirs, decoding=decoding).model) == arrays(random_model(config))
    found = [
        gx.evaluate(folder, tmp_path / "text.txt", tokenizer="bytes", seq_len=32, batch_size=2)
        for folder in (ours, theirs)
    ]
    assert found[0].sets[0].loss == found[1].sets[0].loss
