"""Every GPU kernel, compiled by NVIDIA's compiler for three GPUs that need not be there.

Runs where `pip install "jax[cuda13]==0.10.2" absl-py` (4.4 GB) was run; takes minutes.
"""

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

PINNED = "0.10.2"
SCRIPT = Path(__file__).parents[2] / "experiments" / "gpu_kernels" / "compile.py"


def missing() -> str:
    """Why the compiler cannot run here, or ""."""
    try:
        found = version("jax-cuda13-plugin"), version("nvidia-cuda-nvcc"), version("absl-py")
    except PackageNotFoundError as error:
        return f'{error.name} is missing: pip install "jax[cuda13]=={PINNED}" absl-py (4.4 GB)'
    if found[0] != PINNED:
        return f"the plugin is {found[0]}, and its interface is known of {PINNED}"
    return "" if SCRIPT.exists() else f"{SCRIPT} is part of the repository only"


@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.parametrize("gpu", ["A100", "H100", "B200"])
def test_a_gpu_kernel_needs_no_copies_spills_nothing_and_loads_far_ahead(gpu):
    ran = subprocess.run(
        [sys.executable, SCRIPT, "--gpus", gpu, "--json"],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    records = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(records) > 8
    wrong = [record for record in records if not _good(record)]
    assert not wrong, "\n".join(map(str, wrong))


def _good(record) -> bool:
    bits = 16 if record["dtype"] == "bfloat16" and "odd" in record["program"] else 32
    # Flags and parameters as states take some; one array takes 84 or 168 MB.
    small = record["temporaries"] < 2**20
    return small and record["spilled"] == 0 and record["bits"] == bits and record["loads"] >= 40
