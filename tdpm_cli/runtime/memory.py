"""Memory of devices and of the process."""

import ctypes
import os
import sys

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's names of what mallopt sets: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD


def free_memory(where: torch.device) -> int:
    """Bytes of memory that nothing uses now; 0 where the system does not tell."""
    if where.type == "cuda":
        return int(torch.cuda.mem_get_info(where)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0


def keep_freed() -> None:
    """Have the process keep what it frees, for the next step wants it again: pages that go back to the system are got
    and zeroed anew each time. Linux with glibc; elsewhere nothing is done."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, 1 << 30)
        mallopt(TRIM_THRESHOLD, (1 << 31) - 1)
