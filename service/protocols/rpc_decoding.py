"""Messages that are not what their type says: the caller's fault, so INVALID_ARGUMENT and no line in the log.

The library itself would end such a call with UNKNOWN and log a traceback, as often as anybody likes.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from service.errors import BadRequest
from service.protocols.rpc_calls import Call, Calls, ServicerContext

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Handler = grpc.RpcMethodHandler  # generic in its stubs alone
_UNREADABLE = object()


class DecodingGuard(grpc.aio.ServerInterceptor):
    """Gives every method a deserializer that does not raise; built once for each method."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
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
            return grpc.unary_unary_rpc_method_handler(answer, decode, encode)
        if handler.unary_stream is not None:
            watch = self._guard_one(route, handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(watch, decode, encode)
        stream = self._guard_many(route, handler.stream_stream)
        return grpc.stream_stream_rpc_method_handler(stream, decode, encode)

    def _guard_one(self, route: str, behave: Callable[..., Awaitable[Any]]) -> Any:
        async def answer(request: Any, context: ServicerContext) -> Any:
            if request is _UNREADABLE:
                return await self._calls.answer(route, context, _refuse)
            return await behave(request, context)

        return answer

    def _guard_many(self, route: str, behave: Callable[..., Any]) -> Any:
        async def stream(requests: AsyncIterator[Any], context: ServicerContext) -> Any:
            return await behave(_check(requests), context)

        async def generate(requests: AsyncIterator[Any], context: ServicerContext) -> AsyncIterator[Any]:
            try:
                async for message in behave(_check(requests), context):
                    yield message
            except BadRequest:
                await self._calls.answer(route, context, _refuse)

        return generate if inspect.isasyncgenfunction(behave) else stream


def _make_decoder(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def decode_or_mark(data: bytes) -> Any:
        try:
            return decode(data)
        except DecodeError:
            return _UNREADABLE

    return decode_or_mark


async def _check(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if request is _UNREADABLE:
            await _refuse(None)
        yield request


async def _refuse(_: Call | None) -> Any:
    raise BadRequest("the message is not of the type that this method takes")
