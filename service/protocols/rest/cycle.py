"""A request and its answer as a connection sees them, and uvicorn's for the ASGI application."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.protocols.rest.exchange import Scope
from service.protocols.rest.state import HttpState

App = Callable[[Scope, Any, Any], Awaitable[None]]

log = logging.getLogger("uvicorn.error")


class Cycle(Protocol):
    """One request; its connection calls `start` in its turn, and `feed` and `end` as its body comes."""

    keep_alive: bool
    waiting_for_100_continue: bool
    response_complete: bool

    @property
    def is_head(self) -> bool:
        """The answer goes without its body."""
        ...

    def start(self) -> None:
        """Every request before it on the connection is answered."""
        ...

    def feed(self, chunk: bytes) -> None:
        """More of the body, maybe before `start`."""
        ...

    def end(self) -> None:
        """The body is whole."""
        ...

    def cut(self) -> None:
        """The rest of the body is not waited for any more."""
        ...

    def lose(self) -> None:
        """The caller has gone."""
        ...

    def stop(self) -> None:
        """The time of the drain is over."""
        ...


class AsgiCycle(RequestResponseCycle):
    """A request to `app`, answered by a task."""

    def __init__(
        self,
        app: App,
        scope: Scope,
        state: HttpState,
        transport: asyncio.Transport,
        flow: FlowControl,
        *,
        expects_continue: bool,
        keep_alive: bool,
        on_response: Callable[[], None],
    ) -> None:
        super().__init__(
            scope=cast(Any, scope),
            transport=transport,
            flow=flow,
            logger=log,
            access_logger=log,
            access_log=False,
            default_headers=state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=expects_continue,
            keep_alive=keep_alive,
            on_response=on_response,
        )
        self._app, self._state = app, state

    @property
    def is_head(self) -> bool:
        """See Cycle."""
        return bool(self.scope["method"] == "HEAD")

    def start(self) -> None:
        """See Cycle."""
        self._state.run(asyncio.get_running_loop().create_task(self.run_asgi(cast(Any, self._app))))

    def feed(self, chunk: bytes) -> None:
        """See Cycle."""
        if self.response_complete:
            return
        self.body += chunk
        if len(self.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.message_event.set()

    def end(self) -> None:
        """See Cycle."""
        if not self.response_complete:
            self.more_body = False
            self.message_event.set()

    def cut(self) -> None:
        """See Cycle."""
        self.keep_alive = False
        self.message_event.set()

    def lose(self) -> None:
        """See Cycle."""
        self.disconnected = True
        self.message_event.set()

    def stop(self) -> None:
        """See Cycle; whoever drains cancels the task."""

    def conclude(self) -> None:
        """A whole answer was written without `send`."""
        self.response_started = self.response_complete = True
        self.body = bytearray()  # a refused one is unread, and the cycle stays until the next
        self.message_event.set()
        self.on_response()
