"""A frontend's line to one worker: frames out without copying an image, answers paired with who waits.

Bytes of an image are handed to the kernel from where they were received. When the worker dies, everything it
had not answered fails with LinkLost, once the supervisor has said which images are suspects. Who waits is
told by a call: a future, a task and a timer for each image cost a frontend more than all the rest here.
"""

import asyncio
import itertools
import socket
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

from service.errors import DeadlinePassed
from service.messages import Cancel, Classify, ClassifySlice, Failure, Load, Result, WorkerUp
from service.transport import FrameReader, encode_head
from service.types import ClassifyOptions, ClassifyRequest

READ_BYTES = 1 << 18
MAX_BUFFERS = 256  # well under IOV_MAX, 1024 on Linux
VERDICT_S = 3.0  # how long a dead worker's requests wait for the supervisor to name suspects

Answer = tuple[Result | Failure, bytes]


class LinkLost(Exception):
    """The worker died before it answered; `is_suspect`: it was decoding this image and died of it, maybe."""

    def __init__(self, is_suspect: bool) -> None:
        super().__init__()
        self.is_suspect = is_suspect


Outcome = Answer | LinkLost | DeadlinePassed
Outcomes = list[tuple[int, Outcome]]  # by the place in a slice


class Waiter(Protocol):
    """Whoever is told what became of images."""

    def settle(self, id: int, outcome: Outcome) -> None:
        """Once for each id, on the event loop's thread."""
        ...


class _Single:
    """One image, and a future for its answer."""

    __slots__ = ("answer",)

    def __init__(self, answer: asyncio.Future[Answer]) -> None:
        self.answer = answer

    def settle(self, id: int, outcome: Outcome) -> None:
        """See Waiter."""
        if self.answer.done():
            return
        if isinstance(outcome, tuple):
            self.answer.set_result(outcome)
        else:
            self.answer.set_exception(outcome)


class _Slice:
    """Images sent in one frame: what became of some, and a future for the next, as one each is dear."""

    __slots__ = ("_first", "_fresh", "_loop", "_waiter", "left")

    def __init__(self, first: int, images: int, loop: asyncio.AbstractEventLoop) -> None:
        self.left = images
        self._first, self._loop = first, loop
        self._fresh: Outcomes = []
        self._waiter: asyncio.Future[None] | None = None

    def settle(self, id: int, outcome: Outcome) -> None:
        """See Waiter."""
        self._fresh.append((id - self._first, outcome))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self) -> Outcomes:
        """What has become of images since the last call, at least of one, by their place."""
        if not self._fresh:
            self._waiter = self._loop.create_future()
            await self._waiter
        taken, self._fresh = self._fresh, []
        self.left -= len(taken)
        return taken


class WorkerLink:
    """One worker, from WorkerUp until its connection is lost. Everything runs on the event loop's thread."""

    def __init__(
        self,
        up: WorkerUp,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        on_lost: Callable[["WorkerLink"], None],
    ) -> None:
        self.worker = up.worker
        self.device = up.device
        self.model = up.model
        self.cost_ms = dict(up.cost_ms)
        self.drain_per_s = 0.0
        self.is_retiring = False
        self.is_up = True
        self._socket, self._loop, self._on_lost = sock, loop, on_lost
        self._ids = itertools.count(1)
        self._waiting: dict[int, tuple[float, Waiter]] = {}  # with the deadline, by id
        self._next_deadline = float("inf")
        self._alarm: asyncio.TimerHandle | None = None
        self._outgoing: deque[bytes | memoryview] = deque()
        self._is_flushing = False
        self._is_blocked = False
        self._frames = FrameReader()
        self._told_wait_ms = 0.0
        self._told_at = time.monotonic()
        self._sent: deque[tuple[int, float]] = deque()  # ids and costs that the told wait does not have in it
        self._sent_ms = 0.0
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._read)

    @property
    def is_open(self) -> bool:
        """It takes images."""
        return self.is_up and not self.is_retiring

    @property
    def unanswered(self) -> int:
        """Images it was sent and has not answered."""
        return len(self._waiting)

    def predict_wait_ms(self, now: float) -> float:
        """Milliseconds until an image sent now would start: what the worker last said, and what it was sent
        that it did not know of then. One that owes answers and is silent counts as busy at least as long as
        it has been silent.
        """
        silent_ms = (now - self._told_at) * 1000
        if self._waiting:
            return max(self._told_wait_ms, silent_ms - self._sent_ms) + self._sent_ms
        return max(0.0, self._told_wait_ms - silent_ms)

    def send(
        self,
        request: ClassifyRequest,
        options: ClassifyOptions,
        waiter: Waiter,
        *,
        is_suspect: bool = False,
        due: float | None = None,
    ) -> int:
        """Send one image; `waiter` is told what became of it under the id that this returns.

        Raises DeadlinePassed, and then nothing was sent.
        """
        if request.deadline <= time.monotonic():
            raise DeadlinePassed("the deadline passed before the image was sent to a worker")
        self._begin()
        id = next(self._ids)
        self._waiting[id] = (request.deadline, waiter)
        if options.priority != "bulk":  # bulk work gives way, so nobody waits for it
            cost_ms = self.cost_ms.get(options.tta or "") or self.cost_ms.get("center", 0.0)
            self._sent.append((id, cost_ms))
            self._sent_ms += cost_ms
        message = Classify(id, request.request_id, request.deadline, options, is_suspect, due)
        self._send(encode_head(message, len(request.image)), request.image)
        if request.deadline < self._next_deadline:
            self._set_alarm(request.deadline)
        return id

    def cancel(self, id: int) -> None:
        """Nobody waits for that image any more; its waiter is not told."""
        if self._waiting.pop(id, None) is not None and self.is_up:
            self._send(encode_head(Cancel(id), 0))

    async def exchange(
        self,
        request: ClassifyRequest,
        options: ClassifyOptions,
        is_suspect: bool = False,
        due: float | None = None,
    ) -> Answer:
        """`send`, and wait for the answer. Raises LinkLost, DeadlinePassed; a cancelled caller cancels the
        work.
        """
        waiter = _Single(self._loop.create_future())
        id = self.send(request, options, waiter, is_suspect=is_suspect, due=due)
        try:
            return await waiter.answer
        except asyncio.CancelledError:
            self.cancel(id)
            raise

    async def exchange_slice(
        self, requests: Sequence[ClassifyRequest], options: ClassifyOptions
    ) -> AsyncGenerator[Outcomes, None]:
        """Send images of bulk priority in one frame: what became of each, by its place, as answers come.

        They have one deadline. Closing the iterator cancels the work.
        """
        deadline = requests[0].deadline
        self._begin()
        ids = [next(self._ids) for _ in requests]
        slice = _Slice(ids[0], len(ids), self._loop)
        self._waiting.update(dict.fromkeys(ids, (deadline, slice)))
        names, sizes = [one.request_id for one in requests], [len(one.image) for one in requests]
        message = ClassifySlice(ids[0], names, sizes, deadline, options)
        self._send(encode_head(message, sum(sizes)), *[one.image for one in requests])
        if deadline < self._next_deadline:
            self._set_alarm(deadline)
        try:
            while slice.left:
                yield await slice.take()
        finally:
            if slice.left:
                for id in ids:
                    self.cancel(id)

    def _begin(self) -> None:
        if not self._waiting:  # silence counts from the moment it owes something
            now = time.monotonic()
            self._told_wait_ms, self._told_at = self.predict_wait_ms(now), now

    def finish(self, suspects: list[int]) -> None:
        """The worker is dead: take what it still said, fail the rest; `suspects` are ids it died with."""
        if self.is_up:
            self._read()
            self._lose()
        self._settle(frozenset(suspects))

    def _set_alarm(self, deadline: float) -> None:
        """One timer for the earliest deadline of all: most images are answered long before theirs."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._next_deadline = deadline
        self._alarm = self._loop.call_later(max(0.0, deadline - time.monotonic()), self._expire)

    def _expire(self) -> None:
        now = time.monotonic()
        late = [id for id, (deadline, _) in self._waiting.items() if deadline <= now]
        for id in late:
            waiting = self._waiting.get(id)
            if waiting is not None:  # not cancelled by whoever was told before
                self.cancel(id)
                waiting[1].settle(id, DeadlinePassed("the deadline passed before the image was classified"))
        self._alarm, self._next_deadline = None, float("inf")
        if self._waiting:
            self._set_alarm(min(deadline for deadline, _ in self._waiting.values()))

    def _send(self, head: bytes, *images: bytes) -> None:
        # Flushed once per turn of the loop: requests that arrive together leave in one system call and wake
        # the worker once.
        self._outgoing.append(head)
        self._outgoing.extend(image for image in images if image)
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        while self._outgoing and self.is_up:
            batch = list(itertools.islice(self._outgoing, MAX_BUFFERS))
            try:
                sent = self._socket.sendmsg(batch)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self._read()  # what it said before it died
                self._lose()
                return
            self._drop_sent(sent)
        self._watch_writable()

    def _drop_sent(self, sent: int) -> None:
        outgoing = self._outgoing
        while sent:
            first = outgoing[0]
            if sent < len(first):
                outgoing[0] = memoryview(first)[sent:]
                return
            sent -= len(first)
            outgoing.popleft()

    def _watch_writable(self) -> None:
        is_blocked = bool(self._outgoing) and self.is_up
        if is_blocked and not self._is_blocked:
            self._loop.add_writer(self._socket.fileno(), self._flush)
        elif self._is_blocked and not is_blocked and self.is_up:
            self._loop.remove_writer(self._socket.fileno())
        self._is_blocked = is_blocked

    def _read(self) -> None:
        while self.is_up:
            try:
                data = self._socket.recv(READ_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if not data:
                self._lose()
                return
            for message, payload in self._frames.feed(data):
                self._take(message, payload)
            if len(data) < READ_BYTES:
                return

    def _take(self, message: object, payload: bytes) -> None:
        if isinstance(message, Result | Failure):
            waiting = self._waiting.pop(message.id, None)
            if waiting is not None:
                waiting[1].settle(message.id, (message, payload))
            seen = max(message.seen, message.id)  # frames come in order
        elif isinstance(message, Load):
            self.cost_ms, self.drain_per_s = message.cost_ms, message.drain_per_s
            seen = message.seen
        else:
            return
        self._told_wait_ms, self._told_at = message.wait_ms, time.monotonic()
        while self._sent and self._sent[0][0] <= seen:
            self._sent_ms -= self._sent.popleft()[1]
        if not self._sent:  # sums of floats do not come back to nothing by themselves
            self._sent_ms = 0.0

    def _lose(self) -> None:
        if not self.is_up:
            return
        self._loop.remove_reader(self._socket.fileno())
        if self._is_blocked:
            self._loop.remove_writer(self._socket.fileno())
        self.is_up = False
        self._socket.close()
        self._outgoing.clear()
        self._on_lost(self)
        self._loop.call_later(VERDICT_S, self._settle, frozenset())

    def _settle(self, suspects: frozenset[int]) -> None:
        waiting, self._waiting = self._waiting, {}
        if self._alarm is not None:
            self._alarm.cancel()
        for id, (_, waiter) in waiting.items():
            waiter.settle(id, LinkLost(id in suspects))
