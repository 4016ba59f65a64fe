"""How the models of tests/interop/golden/ were drawn: as `experiments/parity/references.py` does, which needs both
programs; a test below `experiments/parity` cannot be imported without them, so the few lines stand here again."""

import hashlib

import numpy as np

from griffin_eqx.config import ModelConfig


def draw(name, shape):
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    normal = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
    if name.endswith(("recurrent_param", "a_param")):
        return normal - 5
    if "conv_1d" in name:
        return normal * np.float32(0.4)
    if "norm" in name or name.endswith(("bias", "_bias", ".b", "/b")):
        return normal * np.float32(0.2)
    fan_in = {2: shape[-1], 3: shape[-2]}.get(len(shape), 8)
    if name.endswith("kernel"):
        fan_in = shape[0]
    return normal * np.float32(1.5 / fan_in**0.5)


def tokens_of(model):
    return np.random.RandomState(7).randint(1, model["vocab_size"], model["length"]).astype(np.int32)


def like(model):
    """What DeepMind's parameters do not say."""
    head_dim = model["width"] // model["heads"]
    return ModelConfig(
        pattern="local_mqa",
        width=model["width"],
        vocab_size=model["vocab_size"],
        num_heads=model["heads"],
        embedding_scale=model["scale"],
        logit_soft_cap=model["cap"],
        blocks={
            "local_mqa": {"window_size": model["window"] + 1, "head_dim": head_dim, "rope_fraction": 0.5}
        },
    )
