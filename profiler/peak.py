"""The largest resident size of this process."""

import resource
from pathlib import Path


def peak_resident() -> int:
    """Bytes. Linux tells it in /proc; elsewhere it is ru_maxrss, which in a new process begins with that of its parent."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
