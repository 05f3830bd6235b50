"""Where idle lanes wait: they read what frontends send themselves, so a lone image stays on one thread.

Every connection is in one epoll set, edge-triggered. Of the lanes that wait there the kernel wakes one for
each arrival, the one that worked last, whose core's caches are warm: epoll's waiters are exclusive, last in,
first out. While all lanes compute, what comes stays in the sockets: frontends count what a worker has not
seen, and a lane looks before every batch.
"""

import os
import select
import time
from collections.abc import Callable

from service.messages import Cancel, Classify
from service.worker.connection import Connection
from service.worker.queue import WorkQueue
from service.worker.request import Request

READ_EVERY_S = 0.001  # between the decodes of one lane: a look costs two system calls
ENDS = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
ARRIVALS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET


class Intake:
    """Lanes call `read` and `wait`; the IO thread adds and removes connections."""

    def __init__(self, queue: WorkQueue, on_end: Callable[[Connection], None]) -> None:
        """`on_end` is told, by any lane, that a frontend is gone."""
        self._queue, self._on_end = queue, on_end
        self._connections: dict[int, Connection] = {}
        self._read_at = 0.0
        self.heard_at = time.monotonic()
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, select.EPOLLIN | select.EPOLLET)

    def add(self, connection: Connection) -> None:
        """A frontend is there."""
        self._connections[connection.fileno()] = connection
        self._epoll.register(connection.fileno(), ARRIVALS)

    def remove(self, connection: Connection) -> None:
        """It is gone; before its socket is closed."""
        self._epoll.unregister(connection.fileno())
        del self._connections[connection.fileno()]

    def wake(self) -> None:
        """Let one lane that waits look into the queue; with none waiting, the next to wait."""
        os.eventfd_write(self._wake_fd, 1)

    def read(self) -> None:
        """Put what has come into the queue, if nobody has looked just now."""
        if time.monotonic() - self._read_at >= READ_EVERY_S:
            self._poll(0.0)

    def wait(self) -> None:
        """Until something has come or `wake` is called."""
        self._poll(None)

    def close(self) -> None:
        """No lane waits any more."""
        self._epoll.close()
        os.close(self._wake_fd)

    def _poll(self, timeout_s: float | None) -> None:
        events = self._epoll.poll(timeout_s)
        self._read_at = time.monotonic()
        for fd, event in events:
            connection = self._connections.get(fd)
            if connection is not None:
                self._read(connection, is_over=bool(event & ENDS))

    def _read(self, connection: Connection, *, is_over: bool) -> None:
        """All there is, for it is told only once that something came."""
        with connection.reading:
            while (frames := connection.receive()) is not None:
                now, seen = time.monotonic(), connection.seen
                self.heard_at = now
                accepted: dict[int, Request] = {}
                for message, payload in frames:
                    if isinstance(message, Classify):
                        request = Request(connection, message, payload, now)
                        connection.requests[message.id] = request
                        accepted[message.id] = request
                        seen = message.id
                    elif isinstance(message, Cancel):
                        cancelled = connection.requests.pop(message.id, None)
                        if accepted.pop(message.id, None) is None and cancelled is not None:
                            self._queue.forget([cancelled])
                if accepted:
                    self._queue.add(list(accepted.values()))
                connection.seen = seen
                if connection.is_drained and not is_over:
                    return
            orphans = list(connection.requests.values())
            connection.requests.clear()
        self._queue.forget(orphans)
        self._on_end(connection)
