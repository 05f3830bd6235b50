"""The workers as one frontend sees them: who is up, who is nearest, and what the supervisor says of them."""

import asyncio
import socket
import time
from collections.abc import Callable

from service.answers import describe_child, describe_worker
from service.errors import DeadlinePassed, NoWorker, UnknownModel
from service.links import WorkerLink
from service.messages import (
    ChildState,
    ModelsChanged,
    ServedModel,
    StateChanged,
    WorkerDown,
    WorkerRetiring,
    WorkerUp,
)
from service.roster import Roster
from service.types import ChildStatus, WorkerStatus

# A worker that died is up again in about a second on a CPU; one that is not back by then has a reason.
RESPAWN_PATIENCE_S = 10.0

FleetMessage = WorkerUp | WorkerDown | WorkerRetiring | ModelsChanged | StateChanged


class Fleet:
    """Links to workers and the roster of models, kept by the supervisor's messages."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.roster = Roster()
        self.generation = 0
        self._loop = loop
        self._links: dict[int, WorkerLink] = {}
        self._children: list[ChildState] = []
        self._changed = asyncio.Event()

    @property
    def has_worker(self) -> bool:
        """At least one worker takes images."""
        return any(link.is_open for link in self._links.values())

    def apply(self, message: FleetMessage, sock: socket.socket | None = None) -> None:
        """Take one message of the supervisor's; `sock` is WorkerUp's connection."""
        match message:
            case WorkerUp():
                if sock is None:
                    raise ValueError("WorkerUp comes with a connection")
                link = WorkerLink(message, sock, self._loop, self._drop)
                replaced = self._links.pop(message.worker, None)
                if replaced is not None:
                    replaced.finish([])
                self._links[message.worker] = link
                self.roster.add_link(link)
            case WorkerDown():
                lost = self._links.pop(message.worker, None)
                if lost is not None:
                    lost.finish(message.suspects)
            case WorkerRetiring():
                retiring = self._links.get(message.worker)
                if retiring is not None:
                    retiring.is_retiring = True
            case ModelsChanged():
                self.roster.change_models(message)
            case StateChanged():
                self._children = message.children
        self.tell_change()

    def find_nearest(self, model: ServedModel | None = None) -> WorkerLink | None:
        """The worker of `model`, or of any, with the least predicted wait; None where none is up."""
        links = [link for link in self.roster.list_links(model) if link.is_open]
        if len(links) <= 1:
            return links[0] if links else None
        now = time.monotonic()
        return min(links, key=lambda link: link.predict_wait_ms(now))

    def count_workers(self, model: ServedModel) -> int:
        """How many workers of `model` take images."""
        return sum(link.is_open for link in self.roster.list_links(model))

    async def wait_nearest(self, wanted: str, deadline: float) -> WorkerLink:
        """The nearest worker of what `wanted` means once there is one; raises DeadlinePassed, NoWorker.

        The name is looked up again with every change: its version may be replaced while nobody serves it.
        """
        found: list[WorkerLink] = []

        def look() -> bool:
            try:
                link = self.find_nearest(self.roster.resolve(wanted))
            except UnknownModel:
                return False
            found.extend([link] if link is not None else [])
            return link is not None

        await self._wait_until(look, deadline)
        return found[-1]

    async def wait_known(self, deadline: float) -> None:
        """Until the supervisor has said what is served; raises DeadlinePassed, NoWorker."""
        if not self.roster.is_known:
            await self._wait_until(lambda: self.roster.is_known, deadline)

    async def wait_change(self, seen: int) -> int:
        """Wait until `generation` differs from `seen`, and return it."""
        while self.generation == seen:
            await self._changed.wait()
        return self.generation

    def tell_change(self) -> None:
        """Wake everybody who waits for a change."""
        self.generation += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def list_children(self) -> tuple[ChildStatus, ...]:
        """Every child process, as the supervisor last said."""
        return tuple(describe_child(child) for child in self._children)

    def list_workers(self) -> tuple[WorkerStatus, ...]:
        """Every worker as seen from here."""
        now = time.monotonic()
        return tuple(describe_worker(link, now) for link in self._links.values())

    def close(self) -> None:
        """Drop every connection."""
        for link in list(self._links.values()):
            link.finish([])
        self._links.clear()

    def _drop(self, link: WorkerLink) -> None:
        self.roster.remove_link(link)
        self.tell_change()

    async def _wait_until(self, condition: Callable[[], bool], deadline: float) -> None:
        patience = time.monotonic() + RESPAWN_PATIENCE_S
        try:
            async with asyncio.timeout(max(0.0, min(deadline, patience) - time.monotonic())):
                while not condition():
                    await self._changed.wait()
        except TimeoutError:
            if deadline <= patience:
                raise DeadlinePassed("the deadline passed before a worker was up") from None
            detail = f"no worker came up within {RESPAWN_PATIENCE_S:.0f} s"
            raise NoWorker(detail, retry_after_s=RESPAWN_PATIENCE_S) from None
