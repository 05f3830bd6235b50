"""What a method's coroutine is given beside its request: what is used of grpc.aio.ServicerContext."""

import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import grpc

from service.protocols.h2.stream import Stream
from service.protocols.rpc_wire import CallHead, Metadata, Value, write_message, write_opening, write_trailers


class Aborted(Exception):
    """The method ended its call with a status."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code, self.details = code, details


class CallerLeft(Exception):
    """Nobody reads what is written any more."""


class RpcContext:
    """One call's. `caller`: the id of a key, "" where keys are off."""

    def __init__(self, head: CallHead, stream: Stream, caller: str, encode: Callable[[Any], bytes]) -> None:
        self.head, self.caller = head, caller
        self._stream, self._encode = stream, encode
        self._began = time.monotonic()
        self._trailing: Metadata = ()
        self._is_opened = False
        self.is_left = False

    def invocation_metadata(self) -> Metadata:
        """What the caller sent, in order."""
        return self.head.metadata

    def time_remaining(self) -> float | None:
        """Seconds to the caller's deadline; None without one."""
        timeout_s = self.head.timeout_s
        return None if timeout_s is None else timeout_s - (time.monotonic() - self._began)

    def set_trailing_metadata(self, metadata: Iterable[tuple[str, Value]]) -> None:
        """What goes with the status."""
        self._trailing = tuple(metadata)

    def cancelled(self) -> bool:
        """The caller has left."""
        return self.is_left

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Iterable[tuple[str, Value]] = ()
    ) -> NoReturn:
        """End the call with that status."""
        trailing = tuple(trailing_metadata)
        if trailing:
            self._trailing = trailing
        raise Aborted(code, details)

    async def write(self, message: Any) -> None:
        """Send a message; waits while much is unsent. Raises CallerLeft."""
        if self.is_left or self._stream.is_ended:
            raise CallerLeft
        data = write_message(self._encode(message))
        if not self._is_opened:
            self._is_opened = True
            self._stream.send_headers(write_opening())
        self._stream.send_data(data)
        await self._stream.drain()

    def respond(self, message: Any) -> None:
        """The one answer of a unary call, and its good end."""
        trailers = write_trailers(grpc.StatusCode.OK, "", self._trailing, is_alone=False)
        self._stream.respond(write_opening(), write_message(self._encode(message)), trailers)

    def finish(self, code: grpc.StatusCode, details: str = "") -> None:
        """End the call, if it is not ended."""
        is_alone = not self._is_opened
        self._stream.end(write_trailers(code, details, self._trailing, is_alone=is_alone))
