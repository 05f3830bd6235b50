"""Images waiting to be decoded: which goes next, and how much memory decoding may hold.

Interactive before bulk, earliest deadline first. A suspect (an image that was in a decoder that died) is
decoded while no other decode is in flight, so that a second death proves its guilt. Memory is reserved from
the size an image's header states, before a pixel is decoded; what does not fit waits its turn.
"""

from collections import deque
from heapq import heappop, heappush
from itertools import count

from service.worker.request import Request

Heap = list[tuple[float, int, Request]]
PIXEL_BYTES = 3  # a decoded image, uint8 RGB


class DecodeQueue:
    """Not thread-safe; the work queue calls it under its lock."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._interactive: Heap = []
        self._bulk: Heap = []
        self._suspects: deque[Request] = deque()
        self._tickets = count()
        self._held_bytes = 0
        self._is_suspect_running = False
        self.running = 0

    def __len__(self) -> int:
        return len(self._interactive) + len(self._bulk) + len(self._suspects)

    def add(self, request: Request) -> None:
        """Queue a request, new or put back."""
        if request.message.is_suspect:
            self._suspects.append(request)
            return
        heap = self._bulk if request.is_bulk else self._interactive
        heappush(heap, (request.due, next(self._tickets), request))

    def first(self) -> Request | None:
        """What should be decoded next; None when nothing waits or it has to wait for something."""
        if self._suspects:
            return None if self.running else self._suspects[0]
        if self._is_suspect_running:
            return None
        heap = self._interactive or self._bulk
        if not heap or not self._has_room(heap[0][2].decode_bytes):
            return None
        return heap[0][2]

    def start(self, request: Request) -> None:
        """`request`, which `first` gave, is being decoded."""
        if request.message.is_suspect:
            self._suspects.popleft()
            self._is_suspect_running = True
        else:
            heappop(self._bulk if request.is_bulk else self._interactive)
        request.is_decoding = True
        self.running += 1

    def end(self, request: Request) -> None:
        """Its decode is over, or was put off."""
        request.is_decoding = False
        self.running -= 1
        self._is_suspect_running = self._is_suspect_running and not request.message.is_suspect

    def reserve(self, request: Request, size_bytes: int) -> bool:
        """Take memory for decoding; an image that needs more than all there is passes alone."""
        request.decode_bytes = size_bytes
        if not self._has_room(size_bytes):
            return False
        self._hold(request, size_bytes)
        return True

    def keep(self, request: Request) -> None:
        """Decoded: only the pixels are held on to, until the request is answered."""
        height, width = request.size
        self._hold(request, min(request.held_bytes, height * width * PIXEL_BYTES))

    def release(self, request: Request) -> None:
        """It holds no pixels any more."""
        self._hold(request, 0)

    def drop_dead(self, now: float) -> list[Request]:
        """Remove from the heads what nobody waits for; returns the expired, to be answered."""
        expired = []
        for heap in (self._interactive, self._bulk):
            while heap and (not heap[0][2].is_open or heap[0][2].deadline <= now):
                request = heappop(heap)[2]
                if request.is_open:
                    expired.append(request)
        for request in [one for one in self._suspects if not one.is_open or one.deadline <= now]:
            self._suspects.remove(request)
            if request.is_open:
                expired.append(request)
        return expired

    def _has_room(self, size_bytes: int) -> bool:
        return not self._held_bytes or self._held_bytes + size_bytes <= self._max_bytes

    def _hold(self, request: Request, size_bytes: int) -> None:
        self._held_bytes += size_bytes - request.held_bytes
        request.held_bytes = size_bytes
