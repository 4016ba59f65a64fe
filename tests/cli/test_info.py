"""`griffin info` tells what a model is made of, and allocates nothing."""

import json
import os
import subprocess
import sys

import equinox as eqx
import jax
import pytest

import griffin_eqx as gx
from griffin_eqx.model import LanguageModel
from griffin_eqx.summary import with_vocabulary
from griffin_eqx.units import binary, si

pytestmark = pytest.mark.core


def test_the_figures_are_those_of_the_model_itself():
    config = with_vocabulary(gx.preset("griffin-tiny"))
    summary = gx.describe(config, seq_len=64)
    model = jax.jit(lambda: LanguageModel.init(config.model, key=jax.random.key(0)))()
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_array))
    embedding = model.embedding.weight
    filler = (embedding.shape[0] - 257) * embedding.shape[1]
    assert summary.parameters == sum(leaf.size for leaf in leaves) - filler
    assert summary.parameters_non_embedding == sum(leaf.size for leaf in leaves) - embedding.size
    assert summary.weight_bytes == sum(leaf.nbytes for leaf in leaves)
    assert summary.total_cache_bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(model.init_cache(64)))
    assert summary.flops_per_token == model.flops(64) / 64
    assert summary.training_flops_per_token == 3 * summary.flops_per_token
    assert summary.layers == ("rg_lru", "rg_lru", "local_mqa")
    assert summary.runs == ((("rg_lru",), 2), (("local_mqa",), 1))


def test_caches_grow_as_declared():
    config = gx.preset("griffin-tiny")
    config = gx.describe(config, seq_len=384), gx.describe(config, seq_len=2048)
    short, long = (summary.cache_bytes for summary in config)
    assert short["rg_lru"] == long["rg_lru"]
    assert 2 * short["local_mqa"] > long["local_mqa"] > short["local_mqa"]  # the window is 512
    assert config[0].cache_growth == {"rg_lru": "constant", "local_mqa": "window"}


def test_layers_of_one_kind_with_other_options_are_told_apart(griffin):
    answer = json.loads(griffin("info", "L*2 L[window_size=8] R", "--json", "--seq-len", "64").out)
    assert list(answer["cache_bytes"]) == ["local_mqa", "local_mqa[window_size=8]", "rg_lru", "total"]
    assert answer["cache_bytes"]["total"] == sum(answer["cache_bytes"].values()) // 2
    assert answer["seq_len"] == 64


def test_json_has_what_scripts_ask_for(griffin):
    code, out, err = griffin("info", "--json")
    answer = json.loads(out)
    assert (code, err) == (0, "")
    wanted = {"pattern", "layers", "parameters", "parameters_non_embedding", "flops_per_token", "cache_bytes"}
    assert wanted <= set(answer)
    assert answer["pattern"] == "rg_lru*2 local_mqa"


def test_fourteen_billion_parameters_take_no_time_and_no_room():
    command = [sys.executable, "-m", "griffin_eqx", "info", "griffin-14b"]
    before = os.times().children_user
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert os.times().children_user - before < 15  # seconds of processor time: 1.5 here
    assert "13.9 G  (13.8 G without embedding)" in out
    assert "13 x (rg_lru rg_lru local_mqa)  rg_lru" in out


def test_the_vocabulary_is_the_tokenizers_unless_it_is_named():
    assert gx.describe(gx.preset("hawk-tiny")).vocab_size == 257
    assert gx.describe(gx.preset("hawk-100m")).vocab_size == 32_000


def test_numbers_are_short():
    assert [si(n) for n in (0, 999, 1_310_720, 13.9e9)] == ["0", "999", "1.31 M", "13.9 G"]
    assert [binary(n) for n in (0, 1023, 1536, 3 << 40)] == ["0 B", "1023 B", "1.5 KiB", "3 TiB"]


def test_a_mesh_shows_where_every_array_lies_and_its_bytes_a_device(griffin):
    whole = json.loads(griffin("info", "rg_lru*2 local_mqa", "--json").out)
    code, out, err = griffin("info", "rg_lru*2 local_mqa", "--mesh", "data=2,model=2", "--json")
    answer = json.loads(out)
    assert (code, err) == (0, "")
    assert answer["mesh"] == {"data": 2, "sequence": 1, "model": 2}
    arrays = {each["path"]: each for each in answer["arrays"]}
    out = arrays[".stack.units[0][0].temporal.out.weight"]
    assert (out["axes"], out["spec"]) == (["num_layers", "lru_width", "width"], [None, "model", "data"])
    assert out["bytes_per_device"] == 2 * 256 * 256 * 4 // 4
    # Norms, convs and the key and value of one head are in two parts or one; nothing else is.
    assert whole["weight_bytes"] / 4 < answer["parameter_bytes_per_device"] < whole["weight_bytes"] / 3.5
    assert 0 <= answer["optimizer_bytes_per_device"] - 2 * answer["parameter_bytes_per_device"] < 64
    assert (answer["rows_per_device"], answer["tokens_per_device"]) == (2, 512)


def test_the_table_of_a_mesh_names_what_is_split(griffin):
    code, out, err = griffin("info", "rg_lru*2 local_mqa", "--mesh", "data=2,model=2")
    assert (code, err) == (0, "")
    assert "On 4 devices: data=2,model=2" in out
    line = next(line for line in out.splitlines() if "temporal.query.weight" in line)
    assert line.split()[1:] == ["width=256/2", "num_heads=256/2", "64", "KiB"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--mesh", "data=3"), "width = 256 over data=3"),
        (("--mesh", "data=8"), "data.batch_size=4 over data=8"),
        (("--mesh", "rows=8"), "There is no mesh axis 'rows'"),
    ],
)
def test_a_mesh_that_cannot_be_is_one_error(griffin, arguments, part):
    code, _, err = griffin("info", "rg_lru*2 local_mqa", *arguments)
    assert code == 2
    assert part in err
    assert "Traceback" not in err


def test_what_is_frozen_has_no_moments_on_a_mesh_either(griffin):
    def told(*more):
        out = griffin("info", "rg_lru*2 local_mqa", "--mesh", "data=2,model=2", "--json", *more).out
        return json.loads(out)

    whole, frozen = told(), told("--train.freeze", "embedding")
    (embedding,) = [each for each in whole["arrays"] if each["path"] == ".embedding.weight"]
    saved = whole["optimizer_bytes_per_device"] - frozen["optimizer_bytes_per_device"]
    assert saved == 2 * embedding["bytes_per_device"]
    assert frozen["parameter_bytes_per_device"] == whole["parameter_bytes_per_device"]
