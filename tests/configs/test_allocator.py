"""A daemon's large arrays have pages that were used before."""

import ctypes
import subprocess
import sys

import pytest

HAS_MALLOPT = hasattr(ctypes.CDLL(None), "mallopt")
ROUNDS = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from configs.allocator import keep_pages

def work(previous):
    fresh = [np.empty(size, dtype=np.uint8) for size in (40 << 20, (40 << 20) + 4096, 3 << 20)]
    for array in fresh:
        array[::4096] = 1
    return fresh

assert len(sys.argv) == 1 or keep_pages()
with ThreadPoolExecutor(4) as threads:
    held = []
    for round_ in range(12):
        held = threads.submit(work, held).result()
        if round_ == 3:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments: str) -> int:
    """Return how many fresh pages a process needs for eight rounds, once it has had some."""
    done = subprocess.run([sys.executable, "-c", ROUNDS, *arguments], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not HAS_MALLOPT, reason="the C library is not glibc")
def test_arrays_of_later_rounds_need_few_fresh_pages() -> None:
    """In whichever thread they are made, of whatever size."""
    kept, fresh = faults("keep"), faults()
    assert kept < fresh / 10, f"{kept} faults, {fresh} without"
