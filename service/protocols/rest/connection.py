"""uvicorn's httptools connection with what it lacks: deadlines for headers and body, bounds, problems.

uvicorn parses and writes HTTP; this class watches the clock and the sizes. One sweep a second over all
connections costs less than timers on each request.
"""

import asyncio
import email.utils
import time
from collections.abc import Callable
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.errors import BadRequest, Overloaded, RequestTimeout, ServiceError
from service.listening import is_readable
from service.protocols.options import parse_request_id
from service.protocols.rest.exchange import Answer, Cancellable, Scope
from service.protocols.rest.problems import encode_problem
from service.settings import Settings

MAX_HEADER_BYTES = 65_536
# After an answer that came before its request's end the rest is read and dropped, so that the caller can read
# the answer: closing at once would reset the connection under it. This much, then it is cut.
MAX_DISCARD_BYTES = 64 << 20


# Beside what an answer says of itself: it is what it says it is, in nobody's frame, and nobody is told of it.
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]
# For answers that are no pages: should a browser show one all the same, nothing in it is run or loaded.
NO_CONTENT = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
HSTS = (b"strict-transport-security", b"max-age=31536000")


class HttpState(ServerState):
    """What the connections of a server share; `preface` are the headers of every answer as they are sent."""

    def __init__(self, *, is_secure: bool) -> None:
        super().__init__()
        self._fixed = [*SECURITY_HEADERS, *([HSTS] if is_secure else [])]
        self.preface = b""
        self.set_date()

    def set_date(self) -> None:
        """Called once a second."""
        date = email.utils.formatdate(usegmt=True).encode()
        self.default_headers = [(b"date", date), *self._fixed]
        self.preface = b"".join([b"%b: %b\r\n" % pair for pair in [*self.default_headers, NO_CONTENT]])


class HttpConnection(HttpToolsProtocol):
    """One HTTP connection; `watch` is called once a second by the server."""

    def __init__(
        self,
        config: Config,
        server_state: HttpState,
        app_state: dict[str, Any],
        *,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        count_refused: Callable[[int], None],
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self._settings, self._count_refused, self._state = settings, count_refused, server_state
        self._is_in_headers = True
        self._is_in_body = False
        self._since = self.read_at = time.monotonic()
        self._header_bytes = 0
        self._discarded_bytes = 0
        self._body_deadline = float("inf")
        self._dependent: Cancellable | None = None
        self.is_late = False

    # What handlers use

    async def answer(self, scope: Scope, answer: Answer) -> None:
        """Send a whole answer to the request of `scope`; the request's own `send` needs two system calls."""
        cycle: RequestResponseCycle = scope["cycle"]
        if self.flow.write_paused and not cycle.disconnected:
            await self.flow.drain()
        if cycle.disconnected or cycle.response_started:
            return
        status, headers, body = answer
        # A caller that was promised `100 Continue` and got an answer instead may never send its body.
        is_unread = cycle.waiting_for_100_continue
        is_closing = (b"connection", b"close") in headers or not cycle.keep_alive or is_unread
        headers = [pair for pair in headers if pair[0] != b"connection"]
        if is_closing:
            headers.append((b"connection", b"close"))
        fields = b"".join([b"%b: %b\r\n" % pair for pair in headers])
        shown = b"" if cycle.scope["method"] == "HEAD" else body
        self.transport.write(b"%b%b%b\r\n%b" % (STATUS_LINE[status], self._state.preface, fields, shown))
        cycle.response_started = cycle.response_complete = True
        cycle.body = bytearray()  # a refused one is unread, and the cycle stays until the next
        cycle.message_event.set()
        if is_closing:
            self.transport.close()
        cycle.on_response()

    def cancel_when_lost(self, task: Cancellable | None) -> None:
        """Cancel `task` when the caller goes away; None forgets it."""
        self._dependent = task

    def limit_body(self, deadline: float) -> None:
        """Cut the body off at time.monotonic() `deadline`."""
        self._body_deadline = deadline

    def is_waiting(self, scope: Scope) -> bool:
        """The caller of `scope` is there, and no answer has begun."""
        cycle: RequestResponseCycle = scope["cycle"]
        return not cycle.disconnected and not cycle.response_started and not self.transport.is_closing()

    def abort(self) -> None:
        """Break the connection off in the middle of an answer."""
        self.transport.abort()

    # What the server uses

    def is_idle(self) -> bool:
        """It waits for a request of which nothing has come yet, and everything before it is answered."""
        if self.transport.is_closing() or self._header_bytes or self._is_in_body:
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        return not is_readable(self.transport.get_extra_info("socket").fileno())

    def watch(self, now: float) -> None:
        """Cut the connection off where it is slow or silent."""
        if self.transport.is_closing():
            return
        if self._is_in_headers and now - self._since > self._settings.header_timeout_s:
            if self._header_bytes:
                self._refuse(RequestTimeout(f"no end of headers in {self._settings.header_timeout_s:.0f} s"))
            else:
                self.transport.close()
        elif self._is_in_body and not self.flow.read_paused:
            is_silent = now - self.read_at > self._settings.body_timeout_s
            if is_silent or now > self._body_deadline:
                self._cut_body()

    def _cut_body(self) -> None:
        if self.is_late or self.cycle.response_complete:
            self.transport.close()  # the handler had a second to answer, or the answer is out already
            return
        self.is_late = True
        self.cycle.keep_alive = False
        self.cycle.message_event.set()

    # uvicorn's and the parser's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        super().connection_made(transport)
        limit = self._settings.max_connections
        if len(self.connections) > limit:
            self._refuse(
                Overloaded(f"{limit} connections are open (SERVE_MAX_CONNECTIONS)", retry_after_s=1.0)
            )

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._dependent is not None:
            self._dependent.cancel()
            self._dependent = None

    def data_received(self, data: bytes) -> None:
        self.read_at = time.monotonic()
        if self._is_in_headers:
            if not self._header_bytes:
                self._since = self.read_at
            self._header_bytes += len(data)
        elif self._is_in_body and self.cycle.response_complete:
            self._discarded_bytes += len(data)
            if self._discarded_bytes > MAX_DISCARD_BYTES:
                self.transport.close()
                return
        super().data_received(data)
        if self._is_in_headers and self._header_bytes > MAX_HEADER_BYTES:
            self._refuse(BadRequest(f"the headers are longer than {MAX_HEADER_BYTES} bytes"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["connection"] = self  # type: ignore[typeddict-unknown-key]  # for our own handlers
        if not self._is_in_headers:  # a further request on this connection: its clock starts with it
            self._is_in_headers, self._since, self._header_bytes = True, self.read_at, 1

    def on_headers_complete(self) -> None:
        self._is_in_headers, self._is_in_body, self.is_late = False, True, False
        self._header_bytes = self._discarded_bytes = 0
        self._body_deadline = float("inf")
        super().on_headers_complete()
        self.scope["cycle"] = self.cycle  # type: ignore[typeddict-unknown-key]  # pipelined ones differ

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._is_in_body = False

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for what is not HTTP."""
        self._refuse(BadRequest("this is not a valid HTTP/1.1 request"))

    def _refuse(self, error: ServiceError) -> None:
        """Answer outside any handler, and close."""
        if self.transport.is_closing():
            return
        status, headers, body = encode_problem(error, parse_request_id(None))
        self._count_refused(status)
        fields = b"".join([b"%b: %b\r\n" % pair for pair in headers])
        fields = self._state.preface + fields
        self.transport.write(b"%bconnection: close\r\n%b\r\n%b" % (STATUS_LINE[status], fields, body))
        self.transport.close()
