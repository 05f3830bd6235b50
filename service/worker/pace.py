"""How fast the backlog really goes down: what lanes get done of it, by the clock, while there is more to do.

Predictions are of work alone. What comes between two tasks of a lane, and the cores that other programs and
our own refusals take, is only seen here: under overload it makes the difference between a promise and a hope.
"""

import math

SPAN_S = 1.0  # what happened this long ago counts for a third (1/e)
LEAST = 0.05  # of what was predicted: a stall says no more than that


class Pace:
    """Predicted milliseconds done per millisecond; `lanes` while everything goes as predicted, never more."""

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._since: float | None = None
        self._last = 0.0
        self._done_ms, self._took_ms = lanes * SPAN_S * 1000, SPAN_S * 1000

    @property
    def rate(self) -> float:
        """Milliseconds of work that leave the queue in a millisecond."""
        return self._lanes * min(1.0, max(LEAST, self._done_ms / (self._lanes * self._took_ms)))

    def note(self, done_ms: float, now: float, *, is_more: bool) -> None:
        """At `now` (monotonic seconds) so much predicted work has left the queue; `is_more`: some is left."""
        if self._since is not None:
            keep = math.exp((self._since - now) / SPAN_S)
            self._done_ms = self._done_ms * keep + done_ms
            self._took_ms = self._took_ms * keep + (now - self._since) * 1000
        elif now - self._last > SPAN_S:
            self._forget()
        self._last = now
        self._since = now if is_more else None

    def rest(self) -> None:
        """Nothing is left to do: the time from here on is no work's."""
        self._since = None

    def _forget(self) -> None:
        """As predicted, for a span: a first moment says little."""
        self._done_ms, self._took_ms = self._lanes * SPAN_S * 1000, SPAN_S * 1000
