"""A worker process in waiting: its interpreter and libraries are loaded, a model is not.

Most of a small model's respawn is imports, so the next worker to start takes this process and another one is
made once every worker is up again. It costs memory and no processor time; if it dies, nothing depends on it.
"""

import socket
import time

from service.backoff import Backoff
from service.messages import Prepare
from service.recruits import Recruit, exec_child
from service.transport import ControlChannel

# The first one waits until the start is over and its callers are served: short runs do not pay for it.
FIRST_AFTER_S = 3.0


class SpareWorker:
    """At most one; `device` is what the workers run on, and so which engine's libraries are loaded."""

    def __init__(
        self, device: str, first_after_s: float = FIRST_AFTER_S, waiting: Recruit | None = None
    ) -> None:
        """`waiting`: the first one, where it was started already."""
        self._device = device
        self._waiting = waiting
        if waiting is not None:
            _prepare(waiting.control, device)
        self._backoff = Backoff(not_before=time.monotonic() + first_after_s)

    @property
    def pid(self) -> int | None:
        """The process in waiting, if there is one."""
        return None if self._waiting is None else self._waiting.process.pid

    def make(self) -> None:
        """Start one if there is none; called again and again while no worker is starting."""
        now = time.monotonic()
        if self._waiting is not None and self._waiting.process.poll() is not None:
            self._drop()
            self._backoff.note_death(now, was_up=False, was_killed=False)
        if self._waiting is None and self._backoff.may_start(now):
            self._waiting = exec_child("worker")
            _prepare(self._waiting.control, self._device)

    def take(self) -> Recruit | None:
        """The process in waiting, for good; None where there is none alive."""
        if self._waiting is not None and self._waiting.process.poll() is not None:
            self._drop()
        taken, self._waiting = self._waiting, None
        return taken

    def close(self) -> None:
        """End it."""
        if self._waiting is not None:
            self._waiting.process.kill()
            self._drop()

    def _drop(self) -> None:
        assert self._waiting is not None
        self._waiting.process.wait()
        self._waiting.close()
        self._waiting = None


def _prepare(control: socket.socket, device: str) -> None:
    try:
        ControlChannel(control).send(Prepare(device))
    except OSError:  # dead already; `make` or `take` will see it
        return
