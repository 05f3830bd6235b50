"""What every gRPC call has around its work: request id, deadline, errors with details, and one count."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc

from service.errors import Internal, ServiceError
from service.metrics import ABORTED
from service.protocols.base import ProtocolContext
from service.protocols.options import parse_request_id
from service.protocols.rpc_context import Aborted, RpcContext
from service.protocols.rpc_errors import REQUEST_ID_KEY, find_code, make_trailers
from service.protocols.rpc_wire import CallHead

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
ServicerContext = RpcContext


class Call:
    """One call: `deadline` in time.monotonic() seconds, infinite where the caller set none."""

    __slots__ = ("caller", "deadline", "model", "request_id")

    def __init__(self, head: CallHead, caller: str, left_s: float | None) -> None:
        self.request_id = parse_request_id(head.find(REQUEST_ID_KEY))
        self.deadline = float("inf") if left_s is None else time.monotonic() + left_s
        self.caller = caller
        self.model: str | None = None  # as asked, for the count; None where no model is asked

    def limit_deadline(self, default_s: float, longest_s: float) -> float:
        """The call's own deadline, cut to `longest_s` from now; `default_s` from now if it has none."""
        now = time.monotonic()
        return now + default_s if self.deadline == float("inf") else min(self.deadline, now + longest_s)


class Calls:
    """Counts calls and tells their errors; shared by every service, so that it knows when none is left."""

    def __init__(self, context: ProtocolContext) -> None:
        self._classifier = context.classifier
        self._tally = context.metrics.tally
        self._active = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def wait_idle(self) -> None:
        """Until no call is being answered."""
        await self._idle.wait()

    def begin(self) -> None:
        """A call is being answered."""
        self._active += 1
        if self._active == 1:
            self._idle.clear()

    def end(self, route: str, call: Call, code: str) -> None:
        """It is, or its caller has left."""
        model = "" if call.model is None else self._classifier.label_of(call.model)
        self._tally.count_request(route, "grpc", model, code)
        self._active -= 1
        if not self._active:
            self._idle.set()

    def report(self, route: str, call: Call) -> ServiceError:
        """Log what nobody foresaw, within its handler; returns what the caller is told."""
        log.exception("call failed", extra={"fields": {"request_id": call.request_id, "route": route}})
        return Internal(f"internal error, request id {call.request_id}")

    async def answer(
        self, route: str, context: RpcContext, work: Callable[[Call], Awaitable[Answer]]
    ) -> Answer:
        """Run `work`; a ServiceError ends the call with its status, all else with INTERNAL and a log line."""
        call = Call(context.head, context.caller, context.time_remaining())
        code = ABORTED
        self.begin()
        try:
            context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
            try:
                result = await work(call)
                code = grpc.StatusCode.OK.name
                return result
            except ServiceError as error:
                failure = error
            except Aborted:
                raise
            except Exception:
                if context.cancelled():
                    raise
                failure = self.report(route, call)
            code = find_code(failure).name
            trailers = make_trailers(failure, call.request_id)
            return await context.abort(find_code(failure), failure.detail, trailers)
        finally:
            self.end(route, call, code)
