"""How the messages of gRPC calls come in: within their time, and of the type that their method takes.

Left to the library, a call whose message never comes waits for as long as its connection lives, and bytes
that are no message end with UNKNOWN and a traceback in the log, as often as anybody likes. Here the one is
DEADLINE_EXCEEDED after SERVE_BODY_TIMEOUT_S, the other INVALID_ARGUMENT.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from service.errors import BadRequest, RequestTimeout, ServiceError
from service.protocols.rpc_calls import Call, Calls, ServicerContext
from service.settings import Settings

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Handler = grpc.RpcMethodHandler  # generic in its stubs alone
_UNREADABLE = object()


class Intake(grpc.aio.ServerInterceptor):
    """Gives every method a handler that reads in time and a deserializer that does not raise.

    On the wire a single message is a stream of one, so that all methods are given their messages as streams:
    the library hands a single one over only once it is there. Built once for each method.
    """

    def __init__(self, calls: Calls, settings: Settings) -> None:
        self._calls = calls
        # Parts of a message are not seen here, so this is the time of all of it.
        self._first_s, self._next_s = settings.body_timeout_s, settings.keepalive_timeout_s
        self._guarded: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The method's handler, guarded; None for a method that does not exist."""
        route = handler_call_details.method
        guarded = self._guarded.get(route)
        if guarded is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            guarded = self._guarded[route] = self._guard(route, handler)
        return guarded

    def _guard(self, route: str, handler: Any) -> Handler:
        decode, encode = _make_decoder(handler.request_deserializer), handler.response_serializer
        if handler.unary_unary is not None:
            answer = self._guard_one(route, handler.unary_unary)
            return grpc.stream_unary_rpc_method_handler(answer, decode, encode)
        if handler.unary_stream is not None:
            watch = self._guard_one(route, handler.unary_stream)
            return grpc.stream_stream_rpc_method_handler(watch, decode, encode)
        stream = self._guard_many(route, handler.stream_stream)
        return grpc.stream_stream_rpc_method_handler(stream, decode, encode)

    def _guard_one(self, route: str, behave: Callable[..., Awaitable[Any]]) -> Any:
        async def answer(requests: AsyncIterator[Any], context: ServicerContext) -> Any:
            try:
                request = await self._read(requests, self._first_s)
            except StopAsyncIteration:
                return await self._refuse(route, context, BadRequest("the call has no message"))
            except ServiceError as error:
                return await self._refuse(route, context, error)
            return await behave(request, context)

        return answer

    def _guard_many(self, route: str, behave: Callable[..., Any]) -> Any:
        async def stream(requests: AsyncIterator[Any], context: ServicerContext) -> Any:
            return await behave(self._check(requests, None), context)  # it knows when nothing is under way

        async def generate(requests: AsyncIterator[Any], context: ServicerContext) -> AsyncIterator[Any]:
            try:
                async for message in behave(self._check(requests, self._next_s), context):
                    yield message
            except (BadRequest, RequestTimeout) as error:
                await self._refuse(route, context, error)

        return generate if inspect.isasyncgenfunction(behave) else stream

    async def _check(self, requests: AsyncIterator[Any], next_s: float | None) -> AsyncIterator[Any]:
        limit_s: float | None = self._first_s
        while True:
            try:
                request = await self._read(requests, limit_s)
            except StopAsyncIteration:
                return
            yield request
            limit_s = next_s

    async def _read(self, requests: AsyncIterator[Any], limit_s: float | None) -> Any:
        """The next message; raises RequestTimeout, BadRequest, and StopAsyncIteration at the end."""
        try:
            async with asyncio.timeout(limit_s):
                request = await anext(requests)
        except TimeoutError:
            raise RequestTimeout(f"no message in {limit_s:g} s") from None
        if request is _UNREADABLE:
            raise BadRequest("the message is not of the type that this method takes")
        return request

    async def _refuse(self, route: str, context: ServicerContext, error: ServiceError) -> None:
        async def refuse(_: Call) -> None:
            raise error

        if context.cancelled():  # nobody is there to be told
            raise asyncio.CancelledError
        await self._calls.answer(route, context, refuse)


def _make_decoder(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def decode_or_mark(data: bytes) -> Any:
        try:
            return decode(data)
        except DecodeError:
            return _UNREADABLE

    return decode_or_mark
