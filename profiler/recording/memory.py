"""The largest resident size of this process, and memory given back."""

import ctypes
import resource
import sys
from pathlib import Path

import pyarrow


def peak_resident() -> int:
    """Largest resident size of this process in bytes, from /proc on Linux, elsewhere ru_maxrss.

    In a new process ru_maxrss begins with that of its parent.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def give_back() -> None:
    """Return freed memory to the system, Arrow's and, where it can, the C library's. Cost: some milliseconds."""
    pyarrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
