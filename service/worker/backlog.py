"""The predicted wait: how many milliseconds of work lie before a request that arrives now.

Admission, deadlines and Retry-After rest on it. A request is charged an estimate when it arrives, what its
views will cost once they are known, and nothing once its batch runs; a batch counts for what is left of it.
"""

from service.worker.costs import mean_smoothly
from service.worker.pace import Pace
from service.worker.request import Request

FIRST_DECODE_MS = 0.2  # a 1 kB JPEG; what is unknown at start is learnt within ten images
ROUNDING_MS = 1e-6
DECODE_MS_PER_BYTE = 3e-5  # 3 ms for a 100 kB JPEG, measured with bench/engines.py


class Backlog:
    """Not thread-safe; the queue calls it under its lock. `cost_ms`: of one image, by policy, at warm-up."""

    def __init__(self, cost_ms: dict[str, float], default_tta: str, lanes: int) -> None:
        self._policy_ms = dict(cost_ms)
        self._default_tta = default_tta
        self._lanes = lanes
        self._queued = 0
        self._queued_ms = 0.0
        self._running: dict[int, tuple[float, float]] = {}
        self._pace = Pace(lanes)
        self._done_ms = 0.0
        self._decode_ms_per_byte = DECODE_MS_PER_BYTE

    def arrive(self, request: Request) -> None:
        """A request was accepted."""
        tta = request.message.options.tta or self._default_tta
        known = self._policy_ms.get(tta) or self._policy_ms.get(self._default_tta, 0.0)
        self.charge(request, known + self.predict_decode_ms(request))

    def charge(self, request: Request, ms: float) -> None:
        """From now on it stands for `ms` of one core."""
        if not request.is_bulk:
            self._queued += (ms > 0.0) - (request.backlog_ms > 0.0)
            # Sums of floats do not come back to nothing by themselves.
            self._queued_ms = self._queued_ms + ms - request.backlog_ms if self._queued else 0.0
            if not self._queued:  # by whatever way the last one went
                self._pace.rest()
        request.backlog_ms = ms

    def settle(self, request: Request, ms: float) -> None:
        """`ms` of its views went into a batch."""
        self._progress(request, ms)
        left_ms = request.backlog_ms - ms
        self.charge(request, left_ms if left_ms > ROUNDING_MS else 0.0)

    def forget(self, request: Request) -> None:
        """It is answered, or nobody waits for it."""
        self.charge(request, 0.0)

    def learn_policy(self, tta: str, ms: float) -> None:
        """An image of that policy costs `ms` of one core."""
        self._policy_ms[tta] = mean_smoothly(self._policy_ms.get(tta), ms)

    def start(self, lane: int, now: float, predicted_ms: float) -> None:
        """`lane` is busy for about that long."""
        self._running[lane] = (now, predicted_ms)
        self._pace.note(self._done_ms, now, is_more=self._queued > 0)
        self._done_ms = 0.0

    def end(self, lane: int) -> None:
        """`lane` is free."""
        self._running.pop(lane, None)

    def learn_decode(self, request: Request) -> None:
        """The request's image was decoded, or failed to be."""
        self._progress(request, self.predict_decode_ms(request))
        rate = max(0.0, request.decode_ms - FIRST_DECODE_MS) / max(1, request.image_bytes)
        self._decode_ms_per_byte = mean_smoothly(self._decode_ms_per_byte, rate)

    def predict_decode_ms(self, request: Request) -> float:
        """Milliseconds its decoding will take."""
        return FIRST_DECODE_MS + self._decode_ms_per_byte * request.image_bytes

    def wait_ms(self, now: float, free_lane: int | None = None) -> float:
        """Predicted milliseconds until an interactive request arriving now would start.

        What `free_lane` was last said to do is done.
        """
        running = dict(self._running)
        if free_lane is not None:
            running.pop(free_lane, None)
        if len(running) < self._lanes and not self._queued:
            return 0.0
        left = sum(max(0.0, ms - 1000.0 * (now - at)) for at, ms in running.values())
        return (self._queued_ms + left) / self._pace.rate

    def _progress(self, request: Request, ms: float) -> None:
        if not request.is_bulk:
            self._done_ms += ms
