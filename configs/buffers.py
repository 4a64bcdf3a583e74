"""Large buffers, used again as soon as nobody holds them.

The kernel clears every fresh page, and that costs as much as all that a round computes: a third of the CPU time of
one, for 20 M parameters. So what a round needs is taken from the buffers of the round before.
"""

import sys
from threading import Lock

import numpy as np
from numpy.typing import NDArray

GRAIN_BYTES = 1 << 20  # sizes are rounded up to it, so that blocks whose headers differ share buffers
UNUSED_TAKES = 256  # after so many other buffers were taken, one that nobody needs goes back to the system
HELD_HERE = 3  # references to an array that nobody else has: its pair's, the loop's, and that of the counting itself

_lock = Lock()
_held: list[tuple[NDArray[np.uint8], int]] = []  # array, and when it was last taken
_takes = 0


def take(size_bytes: int) -> NDArray[np.uint8]:
    """Return `size_bytes` to be written to, whatever they hold now.

    Views, tensors and memoryviews of it keep it from being used again; nothing has to be given back.
    """
    global _takes
    if size_bytes < GRAIN_BYTES:
        return np.empty(size_bytes, dtype=np.uint8)
    capacity = -(-size_bytes // GRAIN_BYTES) * GRAIN_BYTES
    with _lock:
        _takes += 1
        for index, (array, _) in enumerate(_held):
            if len(array) == capacity and sys.getrefcount(array) == HELD_HERE:
                _held[index] = (array, _takes)
                return array[:size_bytes]
        _held[:] = [(array, taken) for array, taken in _held if _takes - taken < UNUSED_TAKES]
        array = np.empty(capacity, dtype=np.uint8)
        _held.append((array, _takes))
        return array[:size_bytes]
