"""Writes tests/interop/golden/: what the two programs make of small models, for where they are not installed.

.venv-parity/bin/python experiments/parity/golden.py
"""

import io
import json
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import references
from models import SMALL, in_deepmind, in_hugging_face

GOLDEN = Path(__file__).parents[2] / "tests" / "interop" / "golden"
NEW_TOKENS = 40


def main() -> None:
    for model in SMALL:
        with tempfile.TemporaryDirectory() as folder:
            if in_hugging_face(model):
                outcome = references.hugging_face(model, "float32", NEW_TOKENS, f"{folder}/hf")
                _write(f"hf-{model.name}", model, outcome, references.hugging_face_config(model))
            if in_deepmind(model):
                outcome, _ = references.deepmind(model, "float32", NEW_TOKENS, f"{folder}/rg")
                _write(f"deepmind-{model.name}", model, outcome, {})


def _write(name, model, outcome, config) -> None:
    """An .npz whose bytes depend on nothing but its arrays."""
    about = {"model": model._asdict(), "config": config, "shapes": outcome.shapes, "greedy": outcome.greedy}
    sums = [
        [float(g.sum(dtype=np.float64)), float((g**2).sum(dtype=np.float64))]
        for g in outcome.gradients.values()
    ]
    arrays = {
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
        "logits": outcome.logits,
        "blocks": np.stack([block[-3:] for block in outcome.blocks]),
        "gradient_names": np.frombuffer(json.dumps(list(outcome.gradients)).encode(), np.uint8),
        "gradient_sums": np.array(sums, np.float64),
    }
    GOLDEN.mkdir(exist_ok=True)
    with zipfile.ZipFile(GOLDEN / f"{name}.npz", "w", zipfile.ZIP_DEFLATED) as file:
        for key, array in arrays.items():
            raw = io.BytesIO()
            np.save(raw, array)
            file.writestr(zipfile.ZipInfo(f"{key}.npy"), raw.getvalue(), zipfile.ZIP_DEFLATED)
    print(name, (GOLDEN / f"{name}.npz").stat().st_size)


if __name__ == "__main__":
    main()
