"""Freed memory stays in the process, so that its pages are not cleared again."""

import subprocess
import sys
from pathlib import Path

import pytest

from griffin_eqx.cpu_memory import keep_freed_memory

RELEASE = """
import numpy as np
from pathlib import Path
from griffin_eqx.cpu_memory import keep_freed_memory, release_freed_memory
keep_freed_memory()
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
hole, after = np.ones(2**23), np.ones(2**20)
del hole
before = resident()
release_freed_memory()
print(before - resident())
"""

CODE = """
import resource
import numpy as np
from griffin_eqx.cpu_memory import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**23)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


needs_glibc = pytest.mark.skipif(
    not keep_freed_memory(), reason="the C library is not glibc: there is nothing to tell it"
)


@needs_glibc
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's account of memory")
def test_released_memory_goes_back_to_the_kernel():
    done = subprocess.run([sys.executable, "-c", RELEASE], check=True, capture_output=True)
    assert int(done.stdout) > 60 * 2**20


@needs_glibc
def test_a_second_allocation_of_64_mib_faults_in_no_pages():
    counts = [
        int(
            subprocess.run(
                [sys.executable, "-c", CODE.format(keep=keep)], check=True, capture_output=True
            ).stdout
        )
        for keep in (False, True)
    ]
    # 64 MiB are 16,384 pages of 4 KiB, fewer where the kernel hands out large ones.
    assert counts[1] < counts[0]
    assert counts[1] < 100
