"""The memory of one question is kept for the next.

glibc gives a megabyte back to the kernel as soon as it is free, and every page that is asked for again costs a quarter of a microsecond:
a third of the time of a simulation of ten thousand requests or more. Where the C library is another, nothing is done.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys

# Of mallopt(3), and the most that it takes for the second: what is larger goes to the kernel as before.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT, _LARGEST = 1 << 26, 1 << 25


def keep_freed_memory() -> bool:
    """Have up to 64 MB of freed memory kept for what is asked for next; False where that cannot be said."""
    if sys.platform != "linux":
        return False
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(_TRIM_THRESHOLD, _KEPT) and mallopt(_MMAP_THRESHOLD, _LARGEST))
    return False
