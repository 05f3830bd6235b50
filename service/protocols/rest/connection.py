"""One HTTP/1.1 connection: httptools parses, this class watches the clock and the sizes and keeps the order.

A request is a cycle. POST /v1/classify has one of our own (classify.py), which costs no task; every other is
uvicorn's, which runs the ASGI application. One sweep a second over all connections costs less than timers on
each request.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from service.errors import BadRequest, Overloaded, RequestTimeout, ServiceError
from service.listening import is_readable
from service.protocols.options import parse_request_id
from service.protocols.rest.classify import ClassifyDesk, ClassifyHead
from service.protocols.rest.cycle import App, AsgiCycle, Cycle
from service.protocols.rest.exchange import CLASSIFY_PATH, Answer, Cancellable, Exchange, Headers, Scope
from service.protocols.rest.problems import encode_problem
from service.protocols.rest.state import HttpState
from service.settings import Settings

MAX_HEADER_BYTES = 65_536
# After an answer that came before its request's end the rest is read and dropped, so that the caller can read
# the answer: closing at once would reset the connection under it. This much, then it is cut.
MAX_DISCARD_BYTES = 64 << 20
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HttpConnection(asyncio.Protocol):
    """`desk` answers POST /v1/classify, None where nothing is classified; `app` all else."""

    def __init__(
        self,
        state: HttpState,
        app: App,
        desk: ClassifyDesk | None,
        settings: Settings,
        count_refused: Callable[[int], None],
    ) -> None:
        self._state, self._app, self._desk = state, app, desk
        self._settings, self._count_refused = settings, count_refused
        self._parser = httptools.HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)  # the first of those is answered
        self._url = b""
        self._headers: Headers = []
        self._begun: Cycle | None = None
        self._reading: Cycle | None = None  # whose body comes, or came last
        self._pipeline: deque[Cycle] = deque()  # read, and not begun
        self._is_in_headers = True
        self._is_in_body = False
        self._since = self._answered_at = self.read_at = time.monotonic()
        self._header_bytes = self._discarded_bytes = 0
        self._body_deadline = float("inf")
        self._dependent: Cancellable | None = None
        self.is_late = False
        self.fresh_bytes = 0  # of what is being parsed

    # What cycles and handlers use

    async def answer(self, scope: Scope, answer: Answer) -> None:
        """Send a whole answer to the request of `scope`; the request's own `send` needs two system calls."""
        cycle: AsgiCycle = scope["cycle"]
        if self.flow.write_paused and not cycle.disconnected:
            await self.flow.drain()
        if not cycle.disconnected and not cycle.response_started:
            self._write(cycle, answer)
            cycle.conclude()

    def respond(self, cycle: Cycle, answer: Answer) -> None:
        """Send a whole answer to `cycle`, now or when the caller has read those before it."""
        if self.flow.write_paused:
            self._state.run(asyncio.get_running_loop().create_task(self._respond_late(cycle, answer)))
            return
        self._write(cycle, answer)
        cycle.response_complete = True
        self._go_on()

    def ask_for_body(self) -> None:
        """Tell the caller, who waits for it, that the body is wanted."""
        if not self.transport.is_closing():
            self.transport.write(CONTINUE)

    def cancel_when_lost(self, task: Cancellable | None) -> None:
        """Cancel `task` when the caller goes away; None forgets it."""
        self._dependent = task

    def limit_body(self, deadline: float) -> None:
        """Cut the body off at time.monotonic() `deadline`."""
        self._body_deadline = deadline

    def is_waiting(self, scope: Scope) -> bool:
        """The caller of `scope` is there, and no answer has begun."""
        cycle: AsgiCycle = scope["cycle"]
        return not cycle.disconnected and not cycle.response_started and not self.transport.is_closing()

    def abort(self) -> None:
        """Break the connection off in the middle of an answer."""
        self.transport.abort()

    # What the server uses

    def is_idle(self) -> bool:
        """It waits for a request of which nothing has come yet, and everything before it is answered."""
        if self.transport.is_closing() or self._header_bytes or self._is_in_body or not self._is_answered():
            return False
        return not is_readable(self.transport.get_extra_info("socket").fileno())

    def watch(self, now: float) -> None:
        """Cut the connection off where it is slow or silent."""
        if self.transport.is_closing():
            return
        if self._is_in_headers:
            if now - self._since > self._settings.header_timeout_s:
                if self._header_bytes:
                    self._refuse(
                        RequestTimeout(f"no end of headers in {self._settings.header_timeout_s:.0f} s")
                    )
                else:
                    self.transport.close()
        elif self._is_in_body:
            is_silent = now - self.read_at > self._settings.body_timeout_s
            if (is_silent or now > self._body_deadline) and not self.flow.read_paused:
                self._cut_body()
        elif self._is_answered() and now - self._answered_at > self._settings.keepalive_timeout_s:
            self.transport.close()

    def shutdown(self) -> None:
        """Close once what has come is answered."""
        if self._reading is None or self._reading.response_complete:
            self.transport.close()
        else:
            self._reading.keep_alive = False

    def stop(self) -> None:
        """The time for answering is over."""
        if self._begun is not None and not self._begun.response_complete:
            self._begun.stop()

    # The transport's and the parser's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.transport = cast(asyncio.Transport, transport)
        self.flow = FlowControl(self.transport)
        self._state.connections.add(self)
        limit = self._settings.max_connections
        if len(self._state.connections) > limit:
            self._refuse(
                Overloaded(f"{limit} connections are open (SERVE_MAX_CONNECTIONS)", retry_after_s=1.0)
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._state.connections.discard(self)
        if self._begun is not None and not self._begun.response_complete:
            self._begun.lose()
        self._pipeline.clear()
        self.flow.resume_writing()
        self.transport.close()
        del self._parser  # it holds this connection
        if self._dependent is not None:
            self._dependent.cancel()
            self._dependent = None

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self.flow.resume_writing()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self.read_at, self.fresh_bytes = time.monotonic(), len(data)
        if self._is_in_headers:
            if not self._header_bytes:
                self._since = self.read_at
            self._header_bytes += len(data)
        elif self._is_in_body and self._reading is not None and self._reading.response_complete:
            self._discarded_bytes += len(data)
            if self._discarded_bytes > MAX_DISCARD_BYTES:
                self.transport.close()
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # a wish that nobody has to grant
        except httptools.HttpParserError:
            self._refuse(BadRequest("this is not a valid HTTP/1.1 request"))
            return
        if self._is_in_headers and self._header_bytes > MAX_HEADER_BYTES:
            self._refuse(BadRequest(f"the headers are longer than {MAX_HEADER_BYTES} bytes"))

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._url, self._headers = b"", []
        if not self._is_in_headers:  # a further request on this connection: its clock starts with it
            self._is_in_headers, self._since, self._header_bytes = True, self.read_at, 1

    def on_url(self, url: bytes) -> None:
        """More of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The request is known but for its body."""
        self._is_in_headers, self._is_in_body, self.is_late = False, True, False
        self._header_bytes = self._discarded_bytes = 0
        self._body_deadline = float("inf")
        self._reading = cycle = self._make_cycle()
        if self._begun is None or self._begun.response_complete:
            self._begin(cycle)
        else:
            self.flow.pause_reading()
            self._pipeline.append(cycle)

    def on_body(self, chunk: bytes) -> None:
        """More of the body."""
        if self._reading is not None:
            self._reading.feed(chunk)

    def on_message_complete(self) -> None:
        """The request's end."""
        self._is_in_body = False
        if self._reading is not None:
            self._reading.end()

    # Inside

    def _make_cycle(self) -> Cycle:
        version, method = self._parser.get_http_version(), self._parser.get_method().decode("ascii")
        target = httptools.parse_url(self._url)
        path = target.path.decode("ascii")
        if "%" in path:
            path = unquote(path)
        headers = dict(reversed(self._headers))  # of a repeated one the first counts
        expects_continue = headers.get(b"expect", b"").lower() == b"100-continue"
        keep_alive = version != "1.0" and self._parser.should_keep_alive()
        if path == CLASSIFY_PATH and method == "POST" and self._desk is not None:
            exchange = Exchange.open(method, path, self._headers, headers, version)
            head = ClassifyHead(exchange, target.query or b"", expects_continue, keep_alive)
            return self._desk.open(self, head)
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "server": get_local_addr(self.transport),
            "client": get_remote_addr(self.transport),
            "scheme": "https" if is_ssl(self.transport) else "http",
            "method": method,
            "root_path": "",
            "path": path,
            "raw_path": target.path,
            "query_string": target.query or b"",
            "headers": self._headers,
            "state": {},
            "connection": self,  # for our own handlers
        }
        made = AsgiCycle(
            self._app,
            scope,
            self._state,
            self.transport,
            self.flow,
            expects_continue=expects_continue,
            keep_alive=keep_alive,
            on_response=self._go_on,
        )
        scope["cycle"] = made
        return made

    def _begin(self, cycle: Cycle) -> None:
        self._begun = cycle
        cycle.start()

    def _go_on(self) -> None:
        """The request that was begun is answered."""
        self._answered_at = time.monotonic()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self._pipeline:
            self._begin(self._pipeline.popleft())

    def _is_answered(self) -> bool:
        return self._reading is None or self._reading.response_complete

    def _write(self, cycle: Cycle, answer: Answer) -> None:
        status, headers, body = answer
        # A caller that was promised `100 Continue` and got an answer instead may never send its body.
        is_closing = not cycle.keep_alive or cycle.waiting_for_100_continue
        fields = b"".join([b"%b: %b\r\n" % pair for pair in headers])
        if (b"connection", b"close") in headers:
            is_closing = True
        elif is_closing:
            fields += b"connection: close\r\n"
        shown = b"" if cycle.is_head else body
        self.transport.write(b"%b%b%b\r\n%b" % (STATUS_LINE[status], self._state.preface, fields, shown))
        if is_closing:
            self.transport.close()

    async def _respond_late(self, cycle: Cycle, answer: Answer) -> None:
        await self.flow.drain()
        if not self.transport.is_closing():
            self.respond(cycle, answer)

    def _cut_body(self) -> None:
        if self.is_late or self._reading is None or self._reading.response_complete:
            self.transport.close()  # the handler had a second to answer, or the answer is out already
            return
        self.is_late = True
        self._reading.cut()

    def _refuse(self, error: ServiceError) -> None:
        """Answer outside any cycle, and close."""
        if self.transport.is_closing():
            return
        status, headers, body = encode_problem(error, parse_request_id(None))
        self._count_refused(status)
        fields = b"".join([b"%b: %b\r\n" % pair for pair in headers])
        fields = self._state.preface + fields
        self.transport.write(b"%bconnection: close\r\n%b\r\n%b" % (STATUS_LINE[status], fields, body))
        self.transport.close()
