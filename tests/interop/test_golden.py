"""What Hugging Face's and DeepMind's own programs compute, from files (`experiments/parity/golden.py` made them).

float32, sequences of several windows. Logits and the last tokens of every block's output to 1e-4 of their scale; sums
and squares of gradients to 1e-3; the greedy text token by token.
"""

import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import griffin_eqx as gx
from griffin_eqx.interop import deepmind, hugging_face, open_weights, tensor_file, to_model
from griffin_eqx.interop.expressible import sizes_of
from griffin_eqx.interop.foreign import outgoing
from griffin_eqx.interop.tensor_file import TensorSpec
from griffin_eqx.interop.weights import of_model
from tests.interop import golden_models

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.npz"))
DIFFERENTIATED = ("griffin", "paper", "two-key-heads")

BOUND = 1e-4
"""Of the largest logit. float32 sums in another order differ by a few 1e-6 here; a key too many by 1e-2 and more."""


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def golden(request, tmp_path):
    """`(net, config, table, what the program computed, about)`."""
    with np.load(request.param, allow_pickle=False) as file:
        found = {key: file[key] for key in file.files}
    about = json.loads(found["about"].tobytes())
    shapes = {name: tuple(shape) for name, shape in about["shapes"].items()}
    draw = golden_models.draw
    if about["config"]:
        specs = {name: TensorSpec(shape, np.dtype(np.float32)) for name, shape in shapes.items()}
        tensor_file.write(tmp_path / "model.safetensors", specs, lambda name: draw(name, shapes[name]))
        (tmp_path / "config.json").write_text(json.dumps(about["config"]))
        weights = open_weights(tmp_path, window="hf")
        table = hugging_face.table
    else:
        arrays = {name: draw(name, shape) for name, shape in shapes.items()}
        weights = deepmind.from_tensors(
            {name: TensorSpec(array.shape, array.dtype) for name, array in arrays.items()},
            arrays.__getitem__,
            deepmind.FLAX,
            where="golden",
            like=golden_models.like(about["model"]),
        )

        def table(sizes):
            return deepmind.table(sizes, deepmind.FLAX)

    return to_model(weights), weights.config, table, found, about


def _close(one, other, bound=BOUND):
    one = np.asarray(one)
    assert one.shape == other.shape
    assert np.abs(one - other).max() <= bound * np.abs(other).max()


def test_logits_blocks_gradients_and_greedy_text_are_theirs(golden):
    net, config, table, found, about = golden
    tokens = jnp.asarray(golden_models.tokens_of(about["model"]))
    # What is written by always taking the likeliest token is what is likeliest behind each of its beginnings.
    text = jnp.asarray([*tokens[:5].tolist(), *about["greedy"]])

    def forward(net):
        logits, layers = gx.capture(net, tokens, names=("residual",))
        nll = -jnp.take_along_axis(jax.nn.log_softmax(logits[:-1]), tokens[1:, None], 1).mean()
        return nll, (logits, [layer["residual"] for layer in layers], net(text)[0])

    if about["model"]["name"] in DIFFERENTIATED:
        gradients, outputs = eqx.filter_jit(eqx.filter_grad(forward, has_aux=True))(net)
        _check_gradients(gradients, config, table, found)
    else:
        _, outputs = eqx.filter_jit(forward)(net)
    logits, blocks, written = outputs
    _close(logits, found["logits"])
    # Hugging Face's hidden states go into the layers; DeepMind's blocks were asked for what comes out.
    mine, theirs = [np.asarray(block)[-3:] for block in blocks], list(found["blocks"])
    pairs = zip(mine, theirs, strict=True) if about["config"] else zip(mine[1:], theirs[:-1], strict=True)
    for one, other in pairs:
        _close(one, other)
    assert np.argmax(written, -1)[4:-1].tolist() == about["greedy"]


def _check_gradients(gradients, config, table, found):
    _, specs, read = outgoing(table(sizes_of(config.model, "golden")), of_model(gradients, config))
    names = json.loads(found["gradient_names"].tobytes())
    assert set(names) == set(specs)
    for name, (total, squares) in zip(names, found["gradient_sums"], strict=True):
        gradient = read(name).astype(np.float64)
        size = max(squares, 1e-12)
        assert abs((gradient**2).sum() - squares) <= 1e-3 * size, name
        assert abs(gradient.sum() - total) <= 1e-3 * (size * gradient.size) ** 0.5, name


def test_there_are_at_least_six_of_each():
    names = [path.stem.partition("-")[0] for path in GOLDEN]
    assert names.count("hf") >= 6
    assert names.count("deepmind") >= 6
