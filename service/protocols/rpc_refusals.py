"""Calls that are answered at once, whatever comes after their headers."""

import grpc

from service.errors import ServiceError
from service.protocols.h2.stream import Stream
from service.protocols.rpc_calls import Call
from service.protocols.rpc_errors import find_code, make_trailers
from service.protocols.rpc_inbound import CallDesk
from service.protocols.rpc_wire import CallHead, write_trailers


class Refusal:
    """A call that is answered at once, whatever comes after its headers."""

    def feed(self, chunk: bytes) -> None:
        """See h2.stream.Handler."""

    def end(self) -> None:
        """See h2.stream.Handler."""

    def lose(self) -> None:
        """See h2.stream.Handler."""

    def watch(self, now: float) -> None:
        """See h2.stream.Handler."""


def refuse_at_once(stream: Stream, code: grpc.StatusCode, details: str) -> Refusal:
    """End a call that asks for no method of ours."""
    stream.end(write_trailers(code, details, (), is_alone=True))
    return Refusal()


def turn_away(desk: CallDesk, stream: Stream, head: CallHead, error: ServiceError, route: str) -> Refusal:
    """End a call whose caller may not make it, counted under `route`."""
    call = Call(head, "", None)
    desk.calls.begin()
    desk.calls.end(route, call, find_code(error).name)
    metadata = make_trailers(error, call.request_id)
    stream.end(write_trailers(find_code(error), error.detail, metadata, is_alone=True))
    return Refusal()
