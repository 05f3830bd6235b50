"""Decides within microseconds whether an image is accepted: by bytes held, then by predicted wait.

Nothing here counts requests. The wait is what the nearest worker predicts; the limit is SERVE_MAX_WAIT_MS
and the request's own deadline. Under SERVE_DEGRADE the view policy becomes cheaper before a refusal.
"""

from collections.abc import Callable, Mapping
from types import TracebackType

from service.errors import DeadlinePassed, Overloaded, TooLarge

# Refused callers are asked back when the queue should be at half its limit: asked back at the limit itself,
# they would find it full again.
REFILL_SHARE = 0.5
# Under this share of the longest wait nothing is made cheaper; from there to the limit, step by step.
DEGRADE_FROM = 0.5
# A prediction is right in the middle: half of those admitted at the limit would wait longer. With a fifth
# added the slowest hundredth keeps within it, also where a machine slows a little (bench/overload.py).
CAUTION = 1.2
MIN_RETRY_S = 1.0  # Retry-After is whole seconds on HTTP


class Lease:
    """Bytes held for one request; a context manager that gives them back."""

    __slots__ = ("_budget", "size_bytes")

    def __init__(self, budget: "InflightBudget") -> None:
        self._budget = budget
        self.size_bytes = 0

    def grow(self, more_bytes: int) -> None:
        """Hold `more_bytes` more; raises Overloaded, and then holds what it held before."""
        self._budget.take(more_bytes)
        self.size_bytes += more_bytes

    def release(self) -> None:
        """Hold nothing any more."""
        self._budget.give(self.size_bytes)
        self.size_bytes = 0

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class InflightBudget:
    """The bytes of encoded images this frontend holds, bounded by SERVE_MAX_INFLIGHT_BYTES."""

    def __init__(self, limit_bytes: int, predict_retry_s: Callable[[], float]) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._predict_retry_s = predict_retry_s

    def reserve(self, size_bytes: int) -> Lease:
        """A lease of `size_bytes`; raises Overloaded, or TooLarge for what would never fit."""
        lease = Lease(self)
        lease.grow(size_bytes)
        return lease

    def take(self, size_bytes: int) -> None:
        """Hold `size_bytes` more; raises Overloaded or TooLarge."""
        if self.held_bytes + size_bytes <= self.limit_bytes:
            self.held_bytes += size_bytes
            return
        limit = f"{self.limit_bytes} bytes (SERVE_MAX_INFLIGHT_BYTES)"
        if size_bytes > self.limit_bytes:
            raise TooLarge(f"the request has {size_bytes} bytes, this server holds at most {limit}")
        detail = f"{self.held_bytes} bytes of images are in flight, the limit is {limit}"
        raise Overloaded(detail, retry_after_s=self._predict_retry_s())

    def give(self, size_bytes: int) -> None:
        """Hold `size_bytes` less."""
        self.held_bytes -= size_bytes


def check_wait(wait_ms: float, max_wait_ms: float, left_ms: float) -> None:
    """Raises Overloaded where the predicted wait is over the limit, or over what is left to the deadline.

    DeadlinePassed where nothing is left.
    """
    if left_ms <= 0:
        raise DeadlinePassed("the deadline passed before the image was classified")
    if wait_ms > max_wait_ms:
        detail = (
            f"the predicted wait is {wait_ms:.0f} ms, the limit is {max_wait_ms:.0f} ms (SERVE_MAX_WAIT_MS)"
        )
        raise Overloaded(detail, retry_after_s=predict_retry_s(wait_ms, max_wait_ms))
    if wait_ms > left_ms:
        detail = f"the predicted wait is {wait_ms:.0f} ms, the request's deadline is in {left_ms:.0f} ms"
        raise Overloaded(detail, retry_after_s=predict_retry_s(wait_ms, left_ms))


def predict_retry_s(wait_ms: float, limit_ms: float) -> float:
    """Seconds until a queue of `wait_ms`, drained at the rate that predicted it, has room again."""
    return max(MIN_RETRY_S, (wait_ms - REFILL_SHARE * limit_ms) / 1000)


def choose_policy(asked: str, cost_ms: Mapping[str, float], wait_ms: float, max_wait_ms: float) -> str:
    """`asked`, or under pressure one that is measured to be cheaper: the nearer the limit, the cheaper."""
    asked_ms = cost_ms.get(asked)
    pressure = (wait_ms / max_wait_ms - DEGRADE_FROM) / (1 - DEGRADE_FROM)
    if asked_ms is None or pressure <= 0:
        return asked
    cheaper = sorted((ms, name) for name, ms in cost_ms.items() if ms < asked_ms)
    steps = min(len(cheaper), 1 + int(pressure * len(cheaper)))
    return cheaper[-steps][1] if steps else asked
