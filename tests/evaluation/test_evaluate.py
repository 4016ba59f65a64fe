"""What a finished model is judged by: the numbers of its own run, and those of a loop over its logits."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import griffin_eqx as gx
from griffin_eqx.cli import main
from griffin_eqx.errors import ConfigError, GriffinError
from griffin_eqx.interop import save
from griffin_eqx.mesh import MeshError, MeshShape
from griffin_eqx.training.load import load
from griffin_eqx.training.loop import train
from griffin_eqx.training.metrics import read_metrics
from griffin_eqx.training.outcome import read_outcome
from tests import tokenizer_files

pytestmark = pytest.mark.core

MEASURES = ("loss", "bits_per_byte", "accuracy", "exact", "targets", "bytes")


@pytest.fixture(scope="module", params=[False, True], ids=["rows", "carry"])
def run_dir(request, tmp_path_factory, make_config):
    path = tmp_path_factory.mktemp("runs") / "run"
    config = make_config(
        pattern="rg_lru", carry=request.param, eval_lengths=(64,), final_test=True, steps=6, eval_every=3
    )
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        train(config, run_dir=path, quiet=True)
    return path


def untimed(sets):
    return [{key: value for key, value in one.items() if key != "time"} for one in map(_fields, sets)]


def _fields(one):
    return {name: getattr(one, name) for name in one.__struct_fields__}


def test_a_runs_own_validation_comes_out_as_the_run_reported_it(run_dir):
    lines = [line for line in read_metrics(run_dir / "metrics.jsonl") if line["kind"] == "validation"]
    for which in ("best", "last"):
        found = gx.evaluate(run_dir, which=which)
        (reported,) = [line for line in lines if line["step"] == found.step]
        assert {name: getattr(found.sets[0], name) for name in MEASURES} == {n: reported[n] for n in MEASURES}
    (best,) = [line for line in lines if line["step"] == gx.evaluate(run_dir).step]
    assert best["bits_per_byte"] == min(line["bits_per_byte"] for line in lines)


def test_the_test_split_comes_out_as_the_outcome_has_it(run_dir):
    outcome = read_outcome(run_dir)
    assert outcome is not None
    for split in ("validation", "test"):
        found = gx.evaluate(run_dir, split=split, which="last")
        assert untimed(found.sets) == untimed(one for one in outcome[0] if one.split == split)
        assert (found.data, found.split) == (load(run_dir).config.data.corpus, split)


def test_a_file_is_read_whole_and_judged_as_a_loop_over_its_logits_judges_it(run_dir, tmp_path):
    text = "What a pie\u00e7e of work is a man, how noble in reason.\n" * 3
    (tmp_path / "notes.txt").write_text(text, encoding="utf-8")
    (found,) = gx.evaluate(run_dir, tmp_path / "notes.txt", seq_len=200, batch_size=1, eval_lengths=()).sets
    tokens = np.array([256, *text.encode()], np.int32)
    logits = np.asarray(load(run_dir).model(jnp.asarray(tokens))[0], np.float64)
    nll = [math.log(np.exp(row).sum()) - row[t] for row, t in zip(logits[:-1], tokens[1:], strict=True)]
    assert (found.targets, found.bytes) == (len(tokens) - 1, len(text.encode()))
    # float32 scores around 5: a few units in the last place.
    assert found.loss == pytest.approx(np.mean(nll), rel=1e-5)
    assert found.bits_per_byte == pytest.approx(sum(nll) / math.log(2) / len(text.encode()), rel=1e-5)
    for bucket in found.by_position:
        assert bucket.loss == pytest.approx(np.mean(nll[bucket.start : bucket.stop]), rel=1e-4)


def test_carrying_predicts_every_token_from_its_whole_document(run_dir, tmp_path):
    text = "".join(f"{i} of a long row of numbers, " for i in range(30))
    (tmp_path / "long.txt").write_text(text)

    def loss(seq_len, **how):
        found = gx.evaluate(run_dir, tmp_path / "long.txt", seq_len=seq_len, eval_lengths=(), **how)
        return found.sets[0].loss

    whole = loss(1000, carry=False)
    assert loss(50, carry=True) == pytest.approx(whole, rel=1e-5)
    assert loss(50, carry=False) != pytest.approx(whole, rel=1e-4)


def test_fewer_tokens_are_the_first(run_dir):
    (first, *_) = gx.evaluate(run_dir, max_tokens=101, eval_lengths=(), carry=False).sets
    (whole, *_) = gx.evaluate(run_dir, max_tokens=0, eval_lengths=(), carry=False).sets
    assert first.targets == 100 < whole.targets


def test_a_folder_of_weights_is_judged_as_the_run_that_it_is_of(run_dir, tmp_path):
    loaded = load(run_dir)
    save(loaded.model, loaded.config, tmp_path / "weights", step=loaded.step)
    ours, theirs = gx.evaluate(tmp_path / "weights"), gx.evaluate(run_dir)
    assert untimed(ours.sets) == untimed(theirs.sets)
    assert ours.step == theirs.step


def test_over_a_mesh_it_is_what_it_is_on_one_device(run_dir):
    asked = {"max_tokens": 500, "eval_lengths": (64,)}  # the longer rows are too few for `data`
    one, many = gx.evaluate(run_dir, **asked), gx.evaluate(run_dir, mesh=MeshShape(2, 2, 2), **asked)
    assert len(one.sets) == len(many.sets) == 2
    for here, there in zip(one.sets, many.sets, strict=True):
        assert there.loss == pytest.approx(here.loss, rel=1e-5)
        assert (there.targets, there.rows, there.bytes) == (here.targets, here.rows, here.bytes)
        for near, far in zip(here.by_position, there.by_position, strict=True):
            assert far.loss == pytest.approx(near.loss, rel=1e-5)


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        (MeshShape(data=8), "The mesh data=8 cannot divide a batch: data.batch_size=4 over data=8.\n"),
        (MeshShape(model=8), "gate_blocks = 2 over model=8\n"),
        (MeshShape(data=64), "The mesh data=64 has 64 devices and this program 8."),
    ],
)
def test_a_mesh_that_cannot_be_is_refused_before_anything_is_compiled(run_dir, mesh, message, monkeypatch):
    monkeypatch.setattr(jax, "set_mesh", lambda mesh: pytest.fail("a program is called"))
    with pytest.raises(MeshError) as caught:
        gx.evaluate(run_dir, mesh=mesh)
    assert message in str(caught.value)


def test_another_tokenizer_is_refused(run_dir, tmp_path):
    foreign = f"file:{tokenizer_files.byte_level(tmp_path)}"
    with pytest.raises(ConfigError) as caught:
        gx.evaluate(run_dir, tokenizer=foreign)
    assert str(caught.value) == (
        f"The tokenizer {foreign} is not the one that the model was trained with.\n  {run_dir}\n"
        "  Leave --data.tokenizer out."
    )


def test_a_task_of_no_text_is_judged_by_its_own_measure(tmp_path, make_config):
    config = make_config(pattern="rg_lru", vocab_size=None, task="induction_heads", steps=2, eval_tokens=64)
    train(config, run_dir=tmp_path / "run", quiet=True)
    found = gx.evaluate(tmp_path / "run", which="last")
    (line,) = [one for one in read_metrics(tmp_path / "run" / "metrics.jsonl") if one["kind"] == "validation"]
    assert (found.metric, found.tokenizer, found.data) == ("accuracy", None, "induction_heads")
    assert found.sets[0].accuracy == line["accuracy"]
    with pytest.raises(GriffinError, match="It is not known what cuts text into this model's 16 tokens"):
        gx.evaluate(tmp_path / "run", corpus="shakespeare")


def test_the_command_shows_and_tells_the_same(run_dir, capsys):
    found = gx.evaluate(run_dir)
    assert main(["eval", str(run_dir), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["bits_per_byte"] for one in told["sets"]] == [one.bits_per_byte for one in found.sets]
    first = told["sets"][0]
    assert first["perplexity"] == pytest.approx(math.exp(first["loss"]))
    assert first["by_position"][0]["start"] == 0
    assert main(["eval", str(run_dir), "--quiet"]) == 0
    shown = capsys.readouterr()
    assert main(["eval", str(run_dir), "--quiet", "--mesh", "data=2"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == shown.out.splitlines()[0]
    assert f"{found.sets[0].bits_per_byte:.4f}" in shown.out
    assert "Loss by position" in shown.out
    assert shown.err == ""


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["gone"], "griffin: This is no run directory"),
        (["gone", "notes.txt", "--data.corpus", "pysource"], "griffin: Both a file (notes.txt) and"),
        (["gone", "--max-tokens", "-1"], "griffin: --max-tokens: out of range."),
    ],
)
def test_the_command_says_what_is_wrong(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["eval", *argv]) == 2
    assert capsys.readouterr().err.startswith(message)
