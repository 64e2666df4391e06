"""The CPU cores of this process."""

import os
import sys


def cores() -> int:
    """Return the number of CPU cores that this process may use; where the system does not report it, of all cores."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
