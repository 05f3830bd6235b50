"""When to try again: on overload and broken connections, as late as the server asks, within the deadline."""

import random
import time
from dataclasses import dataclass, field

from service.errors import DeadlinePassed, OverloadError, RateLimited, ServiceError

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0


@dataclass(slots=True)
class Patience:
    """One request's budget: `attempts` in all, and a deadline in time.monotonic() seconds."""

    attempts: int
    deadline: float
    used: int = field(default=0)

    def pause_after(self, error: ServiceError) -> float | None:
        """Seconds to wait before the next attempt, or None to give up and raise `error`.

        Full jitter over an exponential bound, but never less than the server's Retry-After.
        """
        self.used += 1
        if not _may_pass_later(error) or self.used >= self.attempts:
            return None
        bound = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**self.used)
        pause = max(error.retry_after_s or 0.0, random.uniform(0, bound))
        return pause if time.monotonic() + pause < self.deadline else None

    def left_s(self) -> float:
        """Seconds until the deadline, never negative."""
        return max(0.0, self.deadline - time.monotonic())


def _may_pass_later(error: ServiceError) -> bool:
    if isinstance(error, DeadlinePassed):
        return False
    return isinstance(error, (OverloadError, RateLimited)) or error.slug == "no-worker"
