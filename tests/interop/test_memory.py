"""Loading and converting hold the model once, measured in a child process as its peak resident memory."""

import json
import subprocess
import sys

import numpy as np
import pytest

from griffin_eqx.config import Config, ModelConfig
from griffin_eqx.interop import write
from griffin_eqx.interop.weights import Weights, specs_of
from griffin_eqx.pattern import Value

MEASURED = """
import json, sys
import griffin_eqx as gx
from griffin_eqx import interop
warm, source, path = sys.argv[1:]

def peak():
    # Of this program alone: what getrusage says begins with the peak of the process that started it.
    fields = dict(line.split(":") for line in open("/proc/self/status"))
    return int(fields["VmHWM"].split()[0]) * 1024

formats = ("griffin", "hf", "deepmind-torch")
works = {to: lambda source, out, to=to: interop.convert(source, out, to=to) for to in formats}
works["load"] = lambda source, out: gx.load(source)
works["decoding"] = lambda source, out: gx.load(source, decoding=True)
for name, work in works.items():
    work(warm, path + name + ".warm")  # what imports and compilers take is not the weights'
before, found = peak(), {}
for name, work in sorted(works.items(), key=lambda item: item[0] == "load"):  # the peaks rise
    kept = None
    kept = work(source, path + name)
    found[name] = peak() - before
print(json.dumps(found))
"""


def _config(width):
    blocks: dict[str, dict[str, Value]] = {
        "rg_lru": {"gate_blocks": 8},
        "local_mqa": {"head_dim": width // 8, "rope_fraction": 0.5},
    }
    model = ModelConfig(
        pattern="(rg_lru rg_lru local_mqa)@6",
        width=width,
        lru_width=width,
        vocab_size=8 * width,
        biases=True,
        embedding_scale=True,
        logit_soft_cap=30.0,
        blocks=blocks,
    )
    return Config(model=model)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """`(the folder of a small model to warm up with and of one of 84 MB, its specs)`."""
    here = tmp_path_factory.mktemp("memory")
    for name, width in (("warm", 64), ("model", 512)):
        specs = specs_of(_config(width))

        def ones(name, specs=specs):
            return np.full(specs[name].shape, 0.5, specs[name].dtype)

        write(Weights(_config(width), specs, ones), here / name, to="griffin")
    return here, specs


def test_converting_holds_a_few_tensors_and_loading_the_model_once(folders, tmp_path):
    """Of 84 MB of weights, 8 MB the largest: a conversion takes the tensor read, its changed form and what is written;
    loading takes the model and its largest stack of layers, which is read into memory of its own before JAX copies it.
    For decoding it stays in its file, whose pages count, and no more than two tensors beside them."""
    here, specs = folders
    argv = [str(here / "warm"), str(here / "model"), str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *argv], capture_output=True, text=True, check=True, timeout=300
    )
    found = json.loads(done.stdout)
    sizes = [spec.nbytes for spec in specs.values()]
    whole, largest = sum(sizes), max(sizes)
    print(
        {name: f"{size / 1e6:.0f} MB" for name, size in found.items()},
        f"{whole / 1e6:.0f} MB, {largest / 1e6:.0f}",
    )
    converted = max(found[to] for to in ("griffin", "hf", "deepmind-torch"))
    assert converted < 4 * largest + 4e6 < whole / 2
    assert found["load"] < 1.25 * whole
    assert found["decoding"] < whole + 2 * largest
