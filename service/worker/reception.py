"""The IO thread: writes what lanes could not, tells the wait, beats the heart, obeys control.

It is the worker's main thread, so the process ends when it should: after a drain, or at once when the
supervisor is gone.
"""

import contextlib
import logging
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from enum import Enum
from functools import partial

from service.messages import Drain, FrontendUp, Heartbeat, Load
from service.transport import ControlChannel, encode_frame
from service.worker.connection import Connection
from service.worker.intake import Intake
from service.worker.queue import WorkQueue

HEARTBEAT_S = 1.0
TELL_S = 0.1  # how old the wait that a frontend knows may get while there is work,
TOLD_SHARE = 0.1  # unless it moved by less than this share
TOLD_MS = 5.0  # or than this
QUIET_S = 0.1  # in a drain: what frontends sent before they knew has arrived by then
RATE_WEIGHT = 0.3  # weight of the last second in the drain rate

log = logging.getLogger("worker")


class End(Enum):
    """Why the loop ended."""

    DRAINED = "drained"
    ORPHANED = "orphaned"


class Reception:
    """`run` blocks until the worker's work is over."""

    def __init__(
        self,
        control: ControlChannel,
        queue: WorkQueue,
        cost_ms: dict[str, float],
        count_answers: Callable[[], int],
    ) -> None:
        """`cost_ms`: what an image of each policy adds to the predicted wait; `count_answers`: so far."""
        self._control, self._queue = control, queue
        self.intake = Intake(queue, self._note_end)
        self._cost_ms, self._count_answers = cost_ms, count_answers
        self._connections: list[Connection] = []
        self._ended: deque[Connection] = deque()  # their frontends are gone
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._selector.register(control.fileno(), selectors.EVENT_READ, self._hear_supervisor)
        self._selector.register(self._wake_fd, selectors.EVENT_READ, self._hear_lanes)
        self._next_beat = self._next_tell = 0.0
        self._answers = 0
        self._drain_per_s = 0.0
        self._drains_since: float | None = None
        self._end: End | None = None

    def run(self) -> End:
        """Serve until drained or orphaned."""
        while self._end is None:
            self._do_what_is_due()
            for key, events in self._selector.select(self._timeout_s()):
                key.data(events)
        return self._end

    def flush(self, timeout_s: float) -> None:
        """Write out what frontends have not read yet, for at most that long."""
        ends = time.monotonic() + timeout_s
        while any(one.has_unsent for one in self._connections) and time.monotonic() < ends:
            self._hear_lanes(0)
            for key, events in self._selector.select(QUIET_S):
                key.data(events)

    def _timeout_s(self) -> float:
        is_busy = any(one.requests or one.told_wait_ms for one in self._connections)
        until = min(self._next_beat, self._next_tell) if is_busy else self._next_beat
        left = max(0.0, until - time.monotonic())
        return left if self._drains_since is None else min(left, QUIET_S)

    def _do_what_is_due(self) -> None:
        now = time.monotonic()
        if now >= self._next_beat:
            self._beat()
            self._next_beat = now + HEARTBEAT_S
        if now >= self._next_tell:
            self._next_tell = now + TELL_S
            self._tell_wait(now)
        is_quiet = (
            self._drains_since is not None and now - max(self._drains_since, self.intake.heard_at) >= QUIET_S
        )
        if is_quiet and not any(one.requests for one in self._connections):
            self._end = End.DRAINED

    def _beat(self) -> None:
        answers = self._count_answers()
        self._drain_per_s += RATE_WEIGHT * ((answers - self._answers) / HEARTBEAT_S - self._drain_per_s)
        self._answers = answers
        try:
            self._control.send(Heartbeat())
        except OSError:
            self._end = End.ORPHANED

    def _tell_wait(self, now: float) -> None:
        """Tell the frontends that no answer has told lately, if there is something to tell."""
        wait_ms = self._queue.wait_ms()
        for connection in self._connections:
            moved_ms = abs(wait_ms - connection.told_wait_ms)
            is_moved = moved_ms > max(TOLD_MS, TOLD_SHARE * connection.told_wait_ms)
            is_over = wait_ms == 0.0 and connection.told_wait_ms > 0.0
            if now - connection.told_at >= TELL_S and (is_moved or is_over):
                self._tell(connection, wait_ms)

    def _tell(self, connection: Connection, wait_ms: float) -> None:
        load = Load(wait_ms, self._cost_ms, self._drain_per_s, connection.seen)
        connection.send(encode_frame(load), wait_ms)

    def _hear_supervisor(self, _: int) -> None:
        try:
            received = self._control.receive()
        except OSError:  # it died with words of ours unread
            received = None
        if received is None:
            self._end = End.ORPHANED
            return
        message, fds = received
        if isinstance(message, FrontendUp):
            self._connect(message.slot, socket.socket(fileno=fds[0]))
        elif isinstance(message, Drain):
            log.info("draining")
            self._drains_since = time.monotonic()
        else:
            log.error("unexpected message", extra={"fields": {"type": type(message).__name__}})

    def _connect(self, slot: int, sock: socket.socket) -> None:
        connection = Connection(sock, slot, self._wake)
        self._connections.append(connection)
        self._tell(connection, self._queue.wait_ms())
        self.intake.add(connection)

    def _note_end(self, connection: Connection) -> None:
        self._ended.append(connection)
        self._wake()

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def _hear_lanes(self, _: int) -> None:
        """They left something unsent, or found a frontend gone."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)
        while self._ended:
            self._disconnect(self._ended.popleft())
        for connection in self._connections:
            if connection.has_unsent and connection not in self._selector.get_map():
                self._selector.register(connection, selectors.EVENT_WRITE, partial(self._flush, connection))

    def _flush(self, connection: Connection, _: int) -> None:
        connection.flush()
        if not connection.has_unsent:
            self._selector.unregister(connection)

    def _disconnect(self, connection: Connection) -> None:
        if connection not in self._connections:
            return
        if connection in self._selector.get_map():
            self._selector.unregister(connection)
        self.intake.remove(connection)
        self._connections.remove(connection)
        connection.close()
