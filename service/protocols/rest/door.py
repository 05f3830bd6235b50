"""Where every HTTP request enters: the hot path to its handler, all others to the FastAPI app.

Gives each request its id, turns every error into a problem document, counts and logs each ending once.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable

from service.errors import BadRequest, Draining, Internal, ServiceError
from service.metrics import ABORTED
from service.protocols.base import ProtocolContext
from service.protocols.rest.access import Admit
from service.protocols.rest.body import CallerGone, Receive
from service.protocols.rest.classify import PATH, ClassifyHandler
from service.protocols.rest.connection import NO_CONTENT
from service.protocols.rest.cors import Cors
from service.protocols.rest.dialects import encode_error
from service.protocols.rest.exchange import Answer, Exchange, Headers, Message, Scope
from service.protocols.rest.problems import encode_problem

log = logging.getLogger("http")

Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
UNKNOWN_ROUTE = "unknown"
DOCUMENT = "/openapi.json"
PROBES = frozenset({"/livez", "/readyz", "/metrics"})  # asked every few seconds, so logged at debug only
# For whoever is cancelled although the caller still waits: the drain's time is over.
STOPPED = Draining("this server stopped before the answer was ready, ask another one", retry_after_s=1.0)


class Door:
    """The ASGI application that a server runs; `handler` is None where nothing is classified.

    `admit` names the caller or raises Unauthenticated or Forbidden; None where everybody may come in.
    """

    def __init__(
        self, context: ProtocolContext, handler: ClassifyHandler | None, app: App, admit: Admit | None
    ) -> None:
        self._classifier = context.classifier
        self._requests = context.metrics.requests
        self._admit, self._gate = admit, context.gate
        self._cors = Cors(context.settings.cors_origins)
        self._handler = handler
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.begin(scope)
        if exchange.is_ill_addressed or (self._cors.is_on and exchange.method == "OPTIONS"):
            answer = self._answer_at_once(exchange)
            if answer is not None:
                await self._send(scope, answer, exchange)
                self._end(exchange, UNKNOWN_ROUTE, str(answer[0]))
                return
        if exchange.path == PATH and exchange.method == "POST" and self._handler is not None:
            await self._classify(self._handler, scope, receive, exchange)
        else:
            await self._pass_on(scope, receive, send, exchange)

    async def _classify(
        self, handler: ClassifyHandler, scope: Scope, receive: Receive, exchange: Exchange
    ) -> None:
        try:
            if self._admit is not None:
                exchange.caller = self._admit(exchange)
            answer = await handler.handle(scope, receive, exchange)
        except ServiceError as error:
            answer = encode_problem(error, exchange.request_id)
        except (CallerGone, asyncio.CancelledError):
            if not scope["connection"].is_waiting(scope):
                self._end(exchange, PATH, ABORTED)
                return
            answer = encode_problem(STOPPED, exchange.request_id)
        except Exception:
            answer = self._report(exchange)
        await self._send(scope, answer, exchange)
        self._end(exchange, PATH, str(answer[0]))

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
            code = await self._finish(scope, encode_error(STOPPED, exchange), exchange)
        except Exception:
            code = await self._finish(scope, self._report(exchange), exchange)
        route = scope.get("route")  # the framework leaves none for its own document
        unnamed = DOCUMENT if exchange.path == DOCUMENT else UNKNOWN_ROUTE
        self._end(exchange, getattr(route, "path", unnamed), code)

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
        if self._classifier.is_draining:
            answer[1].append((b"connection", b"close"))
        if self._cors.is_on or exchange.caller:
            answer[1].extend(self._describe_rate(exchange) + self._cors.describe(exchange))
        await scope["connection"].answer(scope, answer)

    def _report(self, exchange: Exchange) -> Answer:
        fields = {"request_id": exchange.request_id, "method": exchange.method}
        log.exception("unforeseen error", extra={"fields": fields})
        detail = "something went wrong here; the log has it under this request's id"
        return encode_error(Internal(detail), exchange)

    def _end(self, exchange: Exchange, route: str, code: str) -> None:
        asks_model = route == PATH or exchange.model
        model = self._classifier.label_of(exchange.model) if asks_model else ""
        self._requests.count(route, "http", model, code)
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
