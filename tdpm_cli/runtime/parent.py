"""Processes that end when their parent does, however early and however it ends."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time

from tdpm_cli.runtime.signals import ignore_signals

PARENT = "TDPM_PARENT"  # the variable in which a launcher passes its process id
PR_SET_PDEATHSIG = 1  # prctl(2)
POLL_SECONDS = 0.5  # where the kernel does not signal the death of a parent


def end_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Let this process receive a signal when its parent, process `parent`, ends; end at once if it has ended already.

    To be called first of all, in the main thread. On Linux, a later call replaces the signal; elsewhere, the first
    call decides.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    elif not any(thread.name == PARENT for thread in threading.enumerate()):
        threading.Thread(target=_watch, args=(parent, number), name=PARENT, daemon=True).start()
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def end_with_launcher(number: int = signal.SIGKILL) -> None:
    """Call `end_with_parent` in one of several processes, which tdpm or torchrun launched."""
    parent = os.environ.get(PARENT, "")
    end_with_parent(int(parent) if parent.isdigit() else os.getppid(), number)


def start_worker(parent: int, worker: int = 0) -> None:
    """Begin a worker process of process `parent`: it ends with it, and ignores signals.

    Signals reach the whole group, and the parent ends its workers itself.
    """
    of_server = multiprocessing.get_start_method() == "forkserver"  # which ends with `parent`
    end_with_parent(os.getppid() if of_server else parent)
    ignore_signals()


def _watch(parent: int, number: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), number)
