"""Freed memory stays in the process, so that its pages are not cleared again."""

import subprocess
import sys

import pytest

from griffin_eqx.cpu_memory import keep_freed_memory

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


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library is not glibc: there is nothing to tell it")
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
