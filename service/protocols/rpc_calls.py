"""What every gRPC call has around its work: request id, deadline, errors with details, and one count."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, TypeVar

import grpc.aio

from service.errors import Internal, ServiceError
from service.metrics import ABORTED
from service.protocols.base import ProtocolContext
from service.protocols.options import parse_request_id
from service.protocols.rpc_errors import REQUEST_ID_KEY, find_code, make_trailers

log = logging.getLogger(__name__)

# The id of the key a call was made with, "" where keys are off; rpc_door sets it for the call's task.
CALLER: ContextVar[str] = ContextVar("CALLER", default="")

Answer = TypeVar("Answer")
ServicerContext = grpc.aio.ServicerContext[Any, Any]


class Call:
    """One call: `deadline` in time.monotonic() seconds, infinite where the caller set none."""

    __slots__ = ("caller", "deadline", "model", "request_id")

    def __init__(self, context: ServicerContext) -> None:
        given = None
        for key, value in context.invocation_metadata() or ():
            if key == REQUEST_ID_KEY and isinstance(value, str):
                given = value
        self.request_id = parse_request_id(given)
        left_s: float | None = context.time_remaining()
        self.deadline = float("inf") if left_s is None else time.monotonic() + left_s
        self.caller = CALLER.get()
        self.model: str | None = None  # as asked, for the count; None where no model is asked

    def limit_deadline(self, default_s: float, longest_s: float) -> float:
        """The call's own deadline, cut to `longest_s` from now; `default_s` from now if it has none."""
        now = time.monotonic()
        return now + default_s if self.deadline == float("inf") else min(self.deadline, now + longest_s)


class Calls:
    """Runs the work of calls; shared by every service of the server, so that it knows when none is left."""

    def __init__(self, context: ProtocolContext) -> None:
        self._classifier = context.classifier
        self._requests = context.metrics.requests
        self._active = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def wait_idle(self) -> None:
        """Until no call is being answered."""
        await self._idle.wait()

    async def answer(
        self, route: str, context: ServicerContext, work: Callable[[Call], Awaitable[Answer]]
    ) -> Answer:
        """Run `work`; a ServiceError ends the call with its status, all else with INTERNAL and a log line."""
        call = Call(context)
        code = ABORTED
        self._active += 1
        self._idle.clear()
        try:
            context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
            try:
                result = await work(call)
                code = grpc.StatusCode.OK.name
                return result
            except ServiceError as error:
                failure = error
            except Exception as error:
                if isinstance(error, grpc.aio.AbortError) or context.cancelled():
                    raise
                fields = {"request_id": call.request_id, "route": route}
                log.exception("call failed", extra={"fields": fields})
                failure = Internal(f"internal error, request id {call.request_id}")
            code = find_code(failure).name
            trailers = make_trailers(failure, call.request_id)
            return await context.abort(find_code(failure), failure.detail, trailers)
        finally:
            model = "" if call.model is None else self._classifier.label_of(call.model)
            self._requests.count(route, "grpc", model, code)
            self._active -= 1
            if not self._active:
                self._idle.set()
