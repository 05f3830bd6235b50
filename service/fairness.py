"""Whose image goes next while there is more work than workers: start-time fair queueing between keys.

Each frontend sends its workers no more than keeps their batches full and holds the rest here, in an order in
which a key's share of the work is its weight's (Goyal, Vin and Cheng 1996). So a key that asks for little is
served next to one that asks for everything: it waits for a few images, not for the other's whole queue.
Used only where keys are on, and not for bulk work, which waits for everybody. What an image costs is the
milliseconds that it adds to a worker's predicted wait.
"""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from service.errors import DeadlinePassed

# A worker's prediction may be too good, where others use its cores. So it has no more than twice what it was
# seen to answer within the room's time, but as many as make a batch while that is not known.
MIN_IN_FLIGHT = 8
RATE_S = 0.25
MANY_KEYS = 1_000
PUMP_S = 0.005  # how long room at a worker may go unnoticed that no answer has told of


@dataclass(frozen=True, slots=True)
class Share:
    """Of whom, in which proportion to others, and what the image costs in predicted milliseconds."""

    caller: str
    weight: float
    cost_ms: float


@dataclass(order=True, slots=True)
class Turn:
    """One image's place in the line."""

    start: float
    number: int
    share: Share = field(compare=False)
    is_next: asyncio.Future[None] = field(compare=False)


class FairLine:
    """The line before the workers of one model version, on the event loop's thread."""

    def __init__(self, predict_wait_ms: Callable[[], float], room_ms: float) -> None:
        """`predict_wait_ms`: of the nearest worker now; under `room_ms` of it images are let through."""
        self._predict_wait_ms, self._room_ms = predict_wait_ms, room_ms
        self._turns: list[Turn] = []
        self._numbers = itertools.count()
        self._virtual = 0.0
        self._finish: dict[str, float] = {}
        self._waiting_ms: dict[str, float] = {}
        self._weights: dict[str, float] = {}
        self._promised_ms = 0.0
        self._in_flight = self._answers = 0
        self._rate_per_s, self._counted_at = 0.0, time.monotonic()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_waited_in(self) -> bool:
        """Somebody stands in it."""
        return bool(self._turns)

    def predict_wait_ms(self, caller: str, weight: float) -> float:
        """Milliseconds until an image of `caller` that comes now would reach a worker; 0 without a line."""
        if not self._turns:
            return 0.0
        others = sum(one for name, one in self._weights.items() if name != caller)
        return self._waiting_ms.get(caller, 0.0) * (others + weight) / weight

    def enter(self, share: Share) -> "Turn | None":
        """None: the image is let through at once, until `leave`. Else `wait` for what this returns."""
        start = max(self._virtual, self._finish.get(share.caller, 0.0))
        self._finish[share.caller] = start + share.cost_ms / share.weight
        if not self._turns and self._has_room():
            self._virtual = start
            self._in_flight += 1
            return None
        turn = Turn(start, next(self._numbers), share, asyncio.Future())
        heapq.heappush(self._turns, turn)
        self._count(share, share.cost_ms)
        self._wind()
        return turn

    async def wait(self, turn: "Turn", deadline: float) -> None:
        """Until that image is let through, until `leave`; raises DeadlinePassed at monotonic `deadline`."""
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await turn.is_next
        except BaseException as error:
            self._give_up(turn)
            if isinstance(error, TimeoutError):
                detail = "the deadline passed before the image reached a worker"
                raise DeadlinePassed(detail) from None
            raise
        self._promised_ms -= turn.share.cost_ms

    def _give_up(self, turn: Turn) -> None:
        if turn.is_next.cancelled():  # it stays in the line until its turn would come
            self._count(turn.share, -turn.share.cost_ms)
        else:  # it was let through at the same moment
            self._promised_ms -= turn.share.cost_ms
            self.leave()

    def leave(self) -> None:
        """An image that was let through is answered, or nobody waits for it any more."""
        self._in_flight -= 1
        self._answers += 1
        now = time.monotonic()
        if now - self._counted_at >= RATE_S:
            self._rate_per_s = self._answers / (now - self._counted_at)
            self._counted_at, self._answers = now, 0
        if self._turns:
            self.pump()

    def pump(self) -> None:
        """Let through whom there is room for."""
        while self._turns and (self._turns[0].is_next.done() or self._has_room()):
            turn = heapq.heappop(self._turns)
            if turn.is_next.done():
                continue
            self._virtual = max(self._virtual, turn.start)
            self._promised_ms += turn.share.cost_ms
            self._in_flight += 1
            self._count(turn.share, -turn.share.cost_ms)
            turn.is_next.set_result(None)
        if not self._turns and len(self._finish) > MANY_KEYS:  # who has had no more than others is forgotten
            self._finish = {name: at for name, at in self._finish.items() if at > self._virtual}

    def _has_room(self) -> bool:
        most = max(MIN_IN_FLIGHT, 2 * self._rate_per_s * self._room_ms / 1000)
        return self._in_flight < most and self._predict_wait_ms() + self._promised_ms < self._room_ms

    def _count(self, share: Share, more_ms: float) -> None:
        waiting_ms = self._waiting_ms.get(share.caller, 0.0) + more_ms
        if waiting_ms > 1e-6:
            self._waiting_ms[share.caller], self._weights[share.caller] = waiting_ms, share.weight
        else:
            self._waiting_ms.pop(share.caller, None)
            self._weights.pop(share.caller, None)

    def _wind(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PUMP_S, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self.pump()
        if self._turns:
            self._wind()
