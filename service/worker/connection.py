"""The worker's end of its connection to one frontend: frames in, frames out, never waiting for the reader."""

import socket
import threading
import time
from collections.abc import Callable, Iterator

from service.messages import WorkMessage
from service.transport import FrameReader
from service.worker.request import Request

RECEIVE_BYTES = 1 << 18


class Connection:
    """Any thread may send; who reads holds `reading`.

    `requests` are the accepted and unanswered ones by id. Whoever removes an entry may answer it, so each is
    answered at most once; a single dict operation is atomic, so no lock is needed. `seen` is the
    id of the last that was accepted and is part of the predicted wait.
    """

    def __init__(self, sock: socket.socket, slot: int, wake: Callable[[], None]) -> None:
        """`wake` tells the IO thread that bytes are left to write."""
        sock.setblocking(False)
        self.slot = slot
        self.requests: dict[int, Request] = {}
        self.seen = 0
        self.told_at = 0.0
        self.told_wait_ms = 0.0
        self.reading = threading.Lock()
        self.is_drained = False  # the last read took all there was
        self._socket = sock
        self._wake = wake
        self._reader = FrameReader()
        self._unsent = bytearray()
        self._lock = threading.Lock()
        self._is_closed = False

    def fileno(self) -> int:
        """For the selector."""
        return self._socket.fileno()

    @property
    def has_unsent(self) -> bool:
        """Bytes wait for the frontend to read."""
        return bool(self._unsent)

    def receive(self) -> Iterator[tuple[WorkMessage, bytes]] | None:
        """Frames that are complete now; None when the frontend is gone."""
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            self.is_drained = True
            return iter(())
        except OSError:
            return None
        self.is_drained = len(data) < RECEIVE_BYTES
        return self._reader.feed(data) if data else None

    def send(self, data: bytes, wait_ms: float) -> None:
        """Write what the socket takes now, leave the rest to the IO thread. Nothing if the frontend is gone.

        `wait_ms`: the predicted wait that these frames tell.
        """
        self.told_at, self.told_wait_ms = time.monotonic(), wait_ms
        with self._lock:
            if self._is_closed:
                return
            if self._unsent:
                self._unsent += data
                return
            sent = self._try_send(data)
            if sent == len(data) or self._is_closed:
                return
            self._unsent += data[sent:]
        self._wake()

    def flush(self) -> None:
        """Write more of what was left; by the IO thread, when the socket has room."""
        with self._lock:
            if self._unsent and not self._is_closed:
                del self._unsent[: self._try_send(self._unsent)]

    def close(self) -> None:
        """Forget the frontend; its requests are nobody's any more."""
        with self._lock:
            self._is_closed = True
            self._unsent.clear()
            self._socket.close()
        self.requests.clear()

    def _try_send(self, data: bytes | bytearray) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:  # the reading side will see the end of the stream and close
            self._is_closed = True
            self._unsent.clear()
            return 0
