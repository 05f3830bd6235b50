"""When a dead child may be started again: at once after an accident, later and later after failures."""

from dataclasses import dataclass

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 30.0
STEADY_S = 10.0  # a child that lived this long had started well


@dataclass(slots=True)
class Backoff:
    """Counts failures in a row; a death from outside (kill -9) of a child that was up is no failure."""

    failures: int = 0
    not_before: float = 0.0
    last_start: float = 0.0

    def may_start(self, now: float) -> bool:
        """True when the delay has passed; the caller then starts the child at `now` (monotonic seconds)."""
        if now < self.not_before:
            return False
        self.last_start = now
        return True

    def note_death(self, now: float, *, was_up: bool, was_killed: bool) -> None:
        """The child died at `now`; sets the delay before the next start."""
        if was_up and (was_killed or now - self.last_start > STEADY_S):
            self.failures, self.not_before = 0, now
            return
        self.failures += 1
        self.not_before = now + min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**self.failures)
