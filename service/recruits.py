"""Child processes without a seat: started by exec, with a control channel, waiting for their first message.

Imports next to nothing: when a service starts, its children import their libraries while it imports its own.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

# Both a frontend and the job runner (jobs) send work to workers; where messages say frontend, it is either.
Role = Literal["frontend", "jobs", "worker"]


@dataclass(frozen=True, slots=True, eq=False)
class Recruit:
    """A process that was started and has no seat yet: what it is to do comes over `control`."""

    role: Role
    process: subprocess.Popen[bytes]
    control: socket.socket
    stderr_fd: int

    def close(self) -> None:
        """Release what the supervisor held of it; it ends then, unless it has a seat."""
        self.control.close()
        os.close(self.stderr_fd)


def exec_child(role: Role) -> Recruit:
    """Start a process of that role."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stderr_fd = os.memfd_create(f"{role}-stderr", os.MFD_CLOEXEC)
    process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
        [sys.executable, "-m", "service.child", role, str(theirs.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        stderr=stderr_fd,
        pass_fds=[theirs.fileno()],
        process_group=0,
    )
    theirs.close()
    return Recruit(role, process, ours, stderr_fd)


class Recruits:
    """Those that were started ahead."""

    def __init__(self, recruits: Sequence[Recruit] = ()) -> None:
        self._waiting = list(recruits)

    def take(self, role: Role) -> Recruit | None:
        """One of that role that is alive, for good."""
        for recruit in self._waiting:
            if recruit.role == role and recruit.process.poll() is None:
                self._waiting.remove(recruit)
                return recruit
        return None

    def close(self) -> None:
        """End those that nobody took."""
        while self._waiting:
            recruit = self._waiting.pop()
            recruit.process.kill()
            recruit.process.wait()
            recruit.close()


@contextmanager
def start_ahead(*roles: Role) -> Iterator[Recruits]:
    """Processes of these roles, for as long as the context lasts or they were taken."""
    recruits = Recruits([exec_child(role) for role in roles])
    try:
        yield recruits
    finally:
        recruits.close()
