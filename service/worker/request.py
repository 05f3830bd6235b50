"""One image on its way through the worker: what was asked, where it stands, what it has cost so far."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from models.decode import ImageHeader
from models.maps import MapCanvas, Sight
from models.views.base import Look, Looks, ViewOutput
from service.messages import Classify

if TYPE_CHECKING:
    from service.worker.connection import Connection


@dataclass(slots=True, eq=False)
class Request:
    """Mutable; owned by the queue or by one lane at a time, never by both.

    Times are time.monotonic() seconds. `image` is dropped once decoded. `look` is what the policy wants now;
    `outputs` are the engine's answers to it, `missing` how many are still to come. `backlog_ms` is this
    part of the predicted wait, `looks_ms` what all its looks cost by prediction, `held_bytes` its part of the
    decode memory. An activation map is drawn from `canvas` and `sights`, if one is asked for. `infer_ms` is
    how long at least one of its batches ran: `running` of them do so now, since `running_since`.
    """

    connection: "Connection"
    message: Classify
    image: bytes
    arrived: float
    backlog_ms: float = 0.0
    looks_ms: float = 0.0
    image_bytes: int = 0
    header: ImageHeader | None = None
    decode_bytes: int = 0
    held_bytes: int = 0
    is_decoding: bool = False
    looks: Looks | None = None
    look: Look | None = None
    outputs: list[ViewOutput | None] = field(default_factory=list)
    missing: int = 0
    canvas: MapCanvas | None = None
    sights: list[Sight] = field(default_factory=list)
    precision: str = "fp32"
    tta: str = ""
    size: tuple[int, int] = (0, 0)
    decode_ms: float = 0.0
    infer_ms: float = 0.0
    running: int = 0
    running_since: float = 0.0

    def __post_init__(self) -> None:
        self.image_bytes = len(self.image)

    @property
    def deadline(self) -> float:
        """After this nobody waits for the answer."""
        return self.message.deadline

    @property
    def due(self) -> float:
        """The earliest goes first."""
        return self.message.deadline if self.message.due is None else self.message.due

    @property
    def is_bulk(self) -> bool:
        """Bulk work gives way to interactive work."""
        return self.message.options.priority == "bulk"

    @property
    def is_open(self) -> bool:
        """Still waited for: neither answered nor cancelled, and its frontend is there."""
        return self.message.id in self.connection.requests

    def start_batch(self, now: float) -> None:
        """A batch with views of this image begins; the caller holds a lock."""
        if not self.running:
            self.running_since = now
        self.running += 1

    def end_batch(self, now: float) -> None:
        """It is over, or failed."""
        self.running -= 1
        if not self.running:
            self.infer_ms += (now - self.running_since) * 1000

    def read_infer_ms(self, now: float) -> float:
        """How long at least one of its batches ran until `now`: never longer than it was here."""
        return self.infer_ms + ((now - self.running_since) * 1000 if self.running else 0.0)

    def expect(self, look: Look) -> None:
        """The policy wants these views computed next."""
        self.look = look
        self.missing = len(look.views)
        self.outputs = [None] * self.missing
