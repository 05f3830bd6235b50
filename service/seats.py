"""Seats: the places in the process tree that ought to hold one living child each, and how they are named."""

import signal
from dataclasses import dataclass, field

from service.backoff import Backoff
from service.children import Child
from service.messages import ChildState
from service.recruits import Role
from service.rollout import Target


@dataclass(slots=True, eq=False)
class Seat:
    """A place that ought to hold one living child; a dead child is replaced in its seat.

    `has_served`: a child here was up once, so callers count on the version even while it is being replaced.
    """

    role: Role
    slot: int
    target: Target | None = None
    device: str = ""
    threads: int = 0
    child: Child | None = None
    restarts: int = 0
    is_retiring: bool = False
    has_served: bool = False
    backoff: Backoff = field(default_factory=Backoff)
    last_words: str = ""


def is_serving(seat: Seat) -> bool:
    """Whether its version is to be asked for: it was up, and is up again soon if it is not now."""
    return seat.target is not None and seat.has_served and not seat.is_retiring


def describe_seat(seat: Seat) -> ChildState:
    """For /v1/status."""
    model = f"{seat.target.model.name}@{seat.target.model.version}" if seat.target else ""
    pid, state = (seat.child.pid, seat.child.state) if seat.child else (0, "down")
    return ChildState(seat.role, seat.slot, pid, state, seat.restarts, model, seat.device, seat.last_words)


def name_seat(seat: Seat) -> dict[str, object]:
    """For a log line."""
    named: dict[str, object] = {"slot": seat.slot}
    if seat.target:
        named["model"] = f"{seat.target.model.name}@{seat.target.model.version}"
        named["device"] = seat.device
    return named


def name_cause(returncode: int) -> str:
    """How a process ended: the signal's name or the exit code; `returncode` as subprocess gives it."""
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"
