"""What every child process does first: outlive neither the supervisor nor its orders.

A child ignores the terminal's signals (the supervisor drains in one place), dies with its parent even when
that was killed, and leaves the stack of a fatal signal on stderr, which the supervisor reads.
"""

import ctypes
import faulthandler
import os
import signal

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def begin_child() -> None:
    """Called once, before any thread: the death signal belongs to the calling thread's process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died in between
        os._exit(1)
