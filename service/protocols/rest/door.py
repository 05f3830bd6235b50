"""Where HTTP requests enter: the ASGI application around FastAPI's, and what it shares with /v1/classify.

Every error becomes a problem document; each ending is counted and logged once.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable

from service.errors import BadRequest, Internal, ServiceError, make_stopped
from service.metrics import ABORTED
from service.protocols.base import ProtocolContext
from service.protocols.rest.access import Admit
from service.protocols.rest.body import CallerGone, Receive
from service.protocols.rest.cors import Cors
from service.protocols.rest.cycle import App
from service.protocols.rest.dialects import encode_error
from service.protocols.rest.exchange import CLASSIFY_PATH, Answer, Exchange, Headers, Message, Scope
from service.protocols.rest.state import NO_CONTENT

log = logging.getLogger("http")

Send = Callable[[Message], Awaitable[None]]
UNKNOWN_ROUTE = "unknown"
DOCUMENT = "/openapi.json"
PROBES = frozenset({"/livez", "/readyz", "/metrics"})  # asked every few seconds, so logged at debug only


class Door:
    """The ASGI application that a server runs.

    `admit` names the caller or raises Unauthenticated or Forbidden; None where everybody may come in.
    """

    def __init__(self, context: ProtocolContext, app: App, admit: Admit | None) -> None:
        self._classifier = context.classifier
        self._tally = context.metrics.tally
        self._admit, self._gate = admit, context.gate
        self._cors = Cors(context.settings.cors_origins)
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.begin(scope)
        if exchange.is_ill_addressed or (self._cors.is_on and exchange.method == "OPTIONS"):
            answer = self._answer_at_once(exchange)
            if answer is not None:
                await self._send(scope, answer, exchange)
                self.end(exchange, UNKNOWN_ROUTE, str(answer[0]))
                return
        await self._pass_on(scope, receive, send, exchange)

    # What /v1/classify has in common with the others

    def admit(self, exchange: Exchange) -> None:
        """Name the caller of `exchange`; raises BadRequest, Unauthenticated, Forbidden."""
        if exchange.is_ill_addressed:
            raise BadRequest("an HTTP/1.1 request has one Host header", "Host")
        if self._admit is not None:
            exchange.caller = self._admit(exchange)

    def dress(self, exchange: Exchange, answer: Answer) -> None:
        """Add the headers that depend on the server and the caller."""
        if self._classifier.is_draining:
            answer[1].append((b"connection", b"close"))
        if self._cors.is_on or exchange.caller:
            answer[1].extend(self._describe_rate(exchange) + self._cors.describe(exchange))

    def report(self, exchange: Exchange) -> Answer:
        """Log what nobody foresaw, and the answer that tells it."""
        fields = {"request_id": exchange.request_id, "method": exchange.method}
        log.exception("unforeseen error", extra={"fields": fields})
        detail = "something went wrong here; the log has it under this request's id"
        return encode_error(Internal(detail), exchange)

    def end(self, exchange: Exchange, route: str, code: str) -> None:
        """Count the request, and log it."""
        asks_model = route == CLASSIFY_PATH or exchange.model
        model = self._classifier.label_of(exchange.model) if asks_model else ""
        self._tally.count_request(route, "http", model, code)
        level = logging.DEBUG if route in PROBES else logging.INFO
        if log.isEnabledFor(level):
            fields: dict[str, object] = {
                "request_id": exchange.request_id,
                "method": exchange.method,
                "route": route,
                "code": code,
                "ms": round((time.monotonic() - exchange.began) * 1000, 2),
            }
            if exchange.caller:
                fields["key"] = exchange.caller
            log.log(level, "request", extra={"fields": fields})

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        code = ABORTED

        async def watch(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = str(message["status"])
                message["headers"] = [*message.get("headers", ()), *self._extra_headers(exchange, message)]
            await send(message)

        scope["exchange"] = exchange
        if exchange.method == "HEAD":  # as GET; the server leaves the body out
            scope = {**scope, "method": "GET"}
        try:
            if self._admit is not None:
                exchange.caller = self._admit(exchange)
            await self._app(scope, receive, watch)
        except ServiceError as error:
            code = await self._finish(scope, encode_error(error, exchange), exchange)
        except (CallerGone, asyncio.CancelledError):
            code = await self._finish(scope, encode_error(make_stopped(), exchange), exchange)
        except Exception:
            code = await self._finish(scope, self.report(exchange), exchange)
        route = scope.get("route")  # the framework leaves none for its own document
        unnamed = DOCUMENT if exchange.path == DOCUMENT else UNKNOWN_ROUTE
        self.end(exchange, getattr(route, "path", unnamed), code)

    async def _finish(self, scope: Scope, answer: Answer, exchange: Exchange) -> str:
        """Answer in place of a handler that failed; breaks off where it had begun to. Returns the code."""
        if scope["connection"].is_waiting(scope):
            await self._send(scope, answer, exchange)
            return str(answer[0])
        scope["connection"].abort()
        return ABORTED

    def _extra_headers(self, exchange: Exchange, message: Message) -> list[tuple[bytes, bytes]]:
        extra = (
            [] if self._has(message, b"x-request-id") else [(b"x-request-id", exchange.request_id.encode())]
        )
        if self._classifier.is_draining:
            extra.append((b"connection", b"close"))
        if not self._has(message, NO_CONTENT[0]):
            extra.append(NO_CONTENT)
        return extra + self._describe_rate(exchange) + self._cors.describe(exchange)

    def _answer_at_once(self, exchange: Exchange) -> Answer | None:
        """To a request that says to nobody or to two hosts where it goes, and to a page's preflight."""
        if exchange.is_ill_addressed:
            return encode_error(BadRequest("an HTTP/1.1 request has one Host header", "Host"), exchange)
        return self._cors.answer_preflight(exchange)

    def _describe_rate(self, exchange: Exchange) -> Headers:
        """RateLimit and its policy (draft-ietf-httpapi-ratelimit-headers-10), where the key has a rate."""
        state = self._gate.describe_rate(exchange.caller) if exchange.caller else None
        if state is None:
            return []
        window_s, full_in_s = math.ceil(state.burst / state.rate_per_s), math.ceil(state.full_in_s)
        return [
            (b"ratelimit-policy", b'"images";q=%d;w=%d' % (state.burst, window_s)),
            (b"ratelimit", b'"images";r=%d;t=%d' % (state.left, full_in_s)),
        ]

    @staticmethod
    def _has(message: Message, name: bytes) -> bool:
        return any(key.lower() == name for key, _ in message.get("headers", ()))

    async def _send(self, scope: Scope, answer: Answer, exchange: Exchange) -> None:
        self.dress(exchange, answer)
        await scope["connection"].answer(scope, answer)
