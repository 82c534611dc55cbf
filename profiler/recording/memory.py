"""The memory that this process holds, on its device, what the system can give it, and memory given back."""

import ctypes
import resource
import sys
from pathlib import Path

import pyarrow
import torch

CONTROL_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Where Linux says how much memory a container may use, and uses."""


def peak_resident() -> int:
    """Largest resident size of this process in bytes, from /proc on Linux, elsewhere ru_maxrss.

    In a new process ru_maxrss begins with that of its parent.
    """
    return _kilobytes("/proc/self/status", "VmHWM:") * 1024 or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident(device: str = "cpu") -> int:
    """Bytes that this process holds: on a card what torch has taken of it, else the resident size; its largest where
    the system tells no other."""
    if device.startswith("cuda"):
        return torch.cuda.memory_reserved(device)
    return _kilobytes("/proc/self/status", "VmRSS:") * 1024 or peak_resident()


def usable(device: str = "cpu") -> int:
    """Bytes that the system can still give: free memory of a card, else of the machine, within the control group's
    limit; without end if unknown."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    free = _kilobytes("/proc/meminfo", "MemAvailable:") * 1024 or sys.maxsize
    for limit, used in CONTROL_GROUPS:
        try:
            text = [Path(file).read_text(encoding="ascii").strip() for file in (limit, used)]
            free = min(free, max(0, int(text[0]) - int(text[1])))
        except (OSError, ValueError):  # there is none, or it says `max`
            continue
    return free


def _kilobytes(file: str, name: str) -> int:
    """The number after a name in a file of the system; 0 where there is none."""
    try:
        lines = Path(file).read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name))
    except (OSError, StopIteration, ValueError):
        return 0


def give_back() -> None:
    """Return freed memory to the system, Arrow's and, where it can, the C library's. Cost: some milliseconds."""
    pyarrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
