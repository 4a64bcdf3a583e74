"""How the C library hands out memory: for a daemon, whose rounds all need as much of it as the one before.

The kernel clears every fresh page, and that costs as much as all that a round computes. By default a large array is
mapped for itself, so each one is fresh; and what a thread of its own frees comes back to that thread alone.
"""

import ctypes

# The options of mallopt(3), by their numbers in glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def keep_pages() -> bool:
    """Let what is freed be used again for what is asked for next, whichever thread asks, and never give it back.

    It holds for the whole process, and for what it asks for from now on. Returns False where the C library is not
    glibc: then all is as it was, and pages are fresh.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    options = {
        M_MMAP_MAX: 0,  # maps that a large array may have for itself
        M_ARENA_MAX: 1,  # heaps: others than the first have no room for a large array
        M_TRIM_THRESHOLD: -1,  # bytes free at the heap's end from which on they go back: none
    }
    return all(mallopt(option, value) == 1 for option, value in options.items())
