"""XLA's CUDA compiler on a machine without a GPU: the program's temporaries, and what ptxas says of its kernels.

Needs `pip install "jax[cuda13]==0.10.2" absl-py` (4.4 GB) and JAX_PLATFORMS=cpu. Importing this module sets XLA_FLAGS,
so it comes before JAX is used.
"""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_DUMP = tempfile.mkdtemp(prefix="ptx-")
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0 --xla_dump_to={_DUMP}"
)

import jax  # noqa: E402
import numpy as np  # noqa: E402
from jax.experimental import topologies  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402


@dataclass(frozen=True)
class GPU:
    """What XLA wants to know of a GPU; from the data sheets.

    Attributes:
      name: As the driver says it.
      capability: Major and minor.
      cores: Streaming multiprocessors.
      fpus: Of a multiprocessor.
      shared: Bytes of shared memory of a multiprocessor.
      bandwidth: Bytes a second.
      cache: Bytes of L2.
      clock: GHz.
      memory: GiB.
    """

    name: str
    capability: tuple[int, int]
    cores: int
    fpus: int
    shared: int
    bandwidth: int
    cache: int
    clock: float
    memory: int

    @property
    def target_config(self) -> str:
        """A `GpuTargetConfigProto` as text."""
        device = {
            "threads_per_block_limit": 1024,
            "threads_per_warp": 32,
            "threads_per_core_limit": 2048,
            "registers_per_core_limit": 65536,
            "registers_per_block_limit": 65536,
            "block_dim_limit_x": 2**31 - 1,
            "block_dim_limit_y": 65535,
            "block_dim_limit_z": 65535,
            "shared_memory_per_block": 48 << 10,
            "shared_memory_per_block_optin": self.shared - 1024,
            "shared_memory_per_core": self.shared,
            "core_count": self.cores,
            "fpus_per_core": self.fpus,
            "memory_bandwidth": self.bandwidth,
            "l2_cache_size": self.cache,
            "clock_rate_ghz": self.clock,
            "device_memory_size": self.memory << 30,
        }
        major, minor = self.capability
        fields = " ".join(f"{key}: {value}" for key, value in device.items())
        return (
            f"gpu_device_info {{ cuda_compute_capability {{ major: {major} minor: {minor} }} {fields} }} "
            f'platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 }} device_description_str: "{self.name}"'
        )


GPUS = {
    "A100": GPU("NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 164 << 10, 2039 * 10**9, 40 << 20, 1.41, 79),
    "H100": GPU("NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 228 << 10, 3352 * 10**9, 50 << 20, 1.98, 79),
    "B200": GPU("NVIDIA B200", (10, 0), 148, 128, 228 << 10, 7672 * 10**9, 126 << 20, 1.965, 176),
}


@dataclass(frozen=True)
class Kernel:
    """One kernel of a compiled program.

    Attributes:
      name: As `pallas_call` names it.
      registers: Of a thread.
      spilled: Bytes of stores and loads that ptxas adds for want of registers.
      loads: Load instructions in the body of the loop over time.
      bits: Width of the widest of them.
    """

    name: str
    registers: int
    spilled: int
    loads: int
    bits: int


@dataclass(frozen=True)
class Program:
    """A compiled program.

    Attributes:
      temporaries: Bytes.
      seconds: It took to compile, here.
      kernels: In the order of their names.
    """

    temporaries: int
    seconds: float
    kernels: tuple[Kernel, ...]


def compile_for(gpu: GPU, function: Callable[..., Any], *shapes: Any) -> Program:
    """Compiles a function of arrays of these shapes."""
    topology = topologies.get_topology_desc(
        "1x1x1", platform="cuda", topology="1x1x1", target_config=gpu.target_config
    )
    everywhere = NamedSharding(Mesh(np.array(topology.devices[:1]), ("gpu",)), PartitionSpec())
    placed = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=everywhere), shapes)
    before = set(Path(_DUMP).glob("*.ptx"))
    lowered = jax.jit(function).lower(*placed)
    started = time.perf_counter()
    compiled: Any = lowered.compile()
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    seconds = time.perf_counter() - started
    texts = [path.read_text() for path in set(Path(_DUMP).glob("*.ptx")) - before]
    kernels = sorted((kernel for ptx in texts for kernel in _kernels(ptx)), key=lambda kernel: kernel.name)
    return Program(temporaries, seconds, tuple(kernels))


def _kernels(ptx: str) -> list[Kernel]:
    bodies = _entries(ptx)
    if not bodies:
        return []
    (arch,) = re.findall(r"^\.target (\w+)", ptx, re.MULTILINE)
    toolkit = find_spec("nvidia.cu13")
    assert toolkit is not None
    folder = (toolkit.submodule_search_locations or [""])[0]
    said = subprocess.run(
        [f"{folder}/bin/ptxas", f"-arch={arch}", "-v", "-o", os.devnull, "/dev/stdin"],
        input=ptx,
        check=True,
        capture_output=True,
        text=True,
    ).stderr
    parts = re.split(r"Compiling entry function '(\w+)'", said)[1:]
    kernels = []
    for name, report in zip(parts[::2], parts[1::2], strict=True):
        (registers,) = re.findall(r"Used (\d+) registers", report)
        spills = re.findall(r"(\d+) bytes spill", report)
        loads = re.findall(r"ld\.global\S*?(?:\.v(\d))?\.[a-z](\d+)\b", _loop(bodies[name]))
        bits = max((int(count or 1) * int(width) for count, width in loads), default=0)
        kernels.append(Kernel(name, int(registers), sum(map(int, spills)), len(loads), bits))
    return kernels


def _entries(ptx: str) -> dict[str, str]:
    parts = re.split(r"\.visible \.entry (\w+)\(", ptx)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _loop(body: str) -> str:
    """What stands between a label and the last branch back to it."""
    for label in re.findall(r"^(\$\w+):", body, re.MULTILINE):
        _, behind = body.split(f"{label}:")
        if branches := list(re.finditer(rf"bra(?:\.uni)?\s+{re.escape(label)};", behind)):
            return behind[: branches[-1].end()]
    return ""
