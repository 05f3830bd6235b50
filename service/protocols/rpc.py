"""The gRPC port: every service found in this room, health and reflection, over HTTP/2 of our own.

Python's gRPC server takes 0.14 core-ms to answer a call with nothing, more than twice what all of HTTP/1.1
costs a frontend. The library still has the messages, the stubs and the clients; what carries them is in h2/.
"""

import asyncio
import logging
import socket
import time

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

import service.protocols
from models.catalog import find_entries
from service.errors import ServiceError, make_stopped
from service.protocols.base import ProtocolContext, ProtocolEntry
from service.protocols.h2.connection import H2Connection
from service.protocols.h2.limits import Limits
from service.protocols.h2.stream import Handler, Stream
from service.protocols.h2.streams import Requests
from service.protocols.ports import POLL_S, Port
from service.protocols.rpc_call import TaskCall
from service.protocols.rpc_calls import Calls
from service.protocols.rpc_door import CLASSIFYING, RpcDoor
from service.protocols.rpc_health import NAME as HEALTH
from service.protocols.rpc_health import add_health
from service.protocols.rpc_inbound import CallDesk, Inbound
from service.protocols.rpc_methods import Methods
from service.protocols.rpc_refusals import Refusal, refuse_at_once, turn_away
from service.protocols.rpc_service import DirectCall, RpcService
from service.protocols.rpc_wire import ENCODINGS, NO_CALL, CallHead, read_head
from service.settings import Settings
from service.tls import find_tls

# What surrounds an image of the largest size in a request: names, parameters, metadata.
OVERHEAD_BYTES = 1 << 16
# Requests of one connection at once; a client that wants more opens another connection or uses a stream.
MAX_STREAMS = 256
MAX_METADATA_BYTES = 1 << 14
# A connection is told to come back after an hour, so that new servers behind a balancer get their share; its
# calls, long streams included, have another hour to end.
MAX_AGE_S = 3_600
MAX_AGE_GRACE_S = 3_600
IDLE_S = 600
# The server asks a silent client whether it is there; one that has stopped within its headers cannot answer.
# Clients may ask every 10 s, also without calls.
PING_S = 10
PING_TIMEOUT_S = 20
CLIENT_PING_S = 10
TICK_S = 1.0
GOODBYE_S = 0.2  # after it was said that the server stops, calls may be on their way for as long
LAST_WORDS_S = 1.0  # for what was written to be sent

log = logging.getLogger(__name__)


class RunningRpc:
    """The server of one frontend."""

    def __init__(self, context: ProtocolContext, sock: socket.socket) -> None:
        settings = context.settings
        self._calls = Calls(context)
        limit_bytes = settings.max_image_bytes + OVERHEAD_BYTES
        self._desk = CallDesk(context.classifier, settings, self._calls, limit_bytes)
        self._door = None if context.gate.is_open else RpcDoor(context.gate)
        self._methods, self._direct = _find_methods(context, self._calls)
        self._limits = list_limits(settings)
        self._requests = Requests(read_head, self._open_request)
        self._connections: set[H2Connection[CallHead]] = set()
        tls = find_tls(settings, "h2")
        self._port = Port(sock, self._connect, tls, settings.header_timeout_s)
        self._ticker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Accept connections."""
        await self._port.open()
        self._ticker = asyncio.get_running_loop().create_task(self._tick())

    async def drain(self, timeout_s: float) -> None:
        """Send clients elsewhere, finish what was accepted; who only watches health is not waited for."""
        assert self._ticker is not None
        ends = time.monotonic() + timeout_s
        closing = asyncio.ensure_future(self._port.close(ends))
        for is_last in (False, True):
            for connection in list(self._connections):
                connection.say_goodbye(is_last=is_last)
            await asyncio.sleep(min(GOODBYE_S, max(0.0, ends - time.monotonic())))
        try:
            async with asyncio.timeout(max(0.0, ends - time.monotonic())):
                await self._calls.wait_idle()
        except TimeoutError:
            log.warning("calls dropped at the end of the drain")
        await closing
        self._ticker.cancel()
        await self._end_calls()

    def _open_request(self, stream: Stream, head: CallHead) -> Handler:
        """The handler of a request whose headers are here."""
        if head.fault:
            stream.end(NO_CALL)
            return Refusal()
        if head.encoding and head.encoding not in ENCODINGS:
            told = f"messages are not taken in the encoding {head.encoding[:40]!r}"
            return refuse_at_once(stream, grpc.StatusCode.UNIMPLEMENTED, told)
        caller = ""
        if self._door is not None:
            try:
                caller = self._door.admit(head)
            except ServiceError as error:
                route = head.route if head.route in CLASSIFYING else "unknown"
                return turn_away(self._desk, stream, head, error, route)
        direct = self._direct.get(head.route)
        if direct is not None:
            return direct(self._desk, stream, head, caller)
        method = self._methods.find(head.route)
        if method is None:
            return refuse_at_once(stream, grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        return TaskCall(self._desk, stream, head, caller, method=method)

    def _connect(self) -> H2Connection[CallHead]:
        return H2Connection(self._limits, self._connections, self._requests)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            await self._port.renew()
            now = time.monotonic()
            for connection in list(self._connections):
                connection.watch(now)

    async def _end_calls(self) -> None:
        for connection in list(self._connections):
            for stream in connection.streams:
                if isinstance(stream.handler, Inbound):
                    stream.handler.stop(make_stopped())
        await asyncio.sleep(0)  # cancelled tasks say their last words
        await asyncio.sleep(0)
        for connection in list(self._connections):
            connection.close()
        ends = time.monotonic() + LAST_WORDS_S
        while self._connections and time.monotonic() < ends:  # noqa: ASYNC110  # no event
            await asyncio.sleep(POLL_S)
        for connection in list(self._connections):
            connection.abort()


async def start(context: ProtocolContext, sock: socket.socket) -> RunningRpc:
    """Serve on the bound socket `sock`."""
    running = RunningRpc(context, sock)
    await running.start()
    return running


def list_limits(settings: Settings) -> Limits:
    """What the settings and this module say of a connection."""
    return Limits(
        max_connections=settings.max_connections,
        max_streams=MAX_STREAMS,
        max_header_bytes=MAX_METADATA_BYTES,
        header_timeout_s=settings.header_timeout_s,
        idle_s=IDLE_S,
        max_age_s=MAX_AGE_S,
        age_grace_s=MAX_AGE_GRACE_S,
        ping_s=PING_S,
        pong_s=PING_TIMEOUT_S,
        client_ping_s=CLIENT_PING_S,
        stuck_s=settings.keepalive_timeout_s,
    )


def _find_methods(context: ProtocolContext, calls: Calls) -> tuple[Methods, dict[str, DirectCall]]:
    methods = Methods()
    direct: dict[str, DirectCall] = {}
    services = find_entries(service.protocols, "RPC_SERVICE", RpcService)
    for one in services:
        one.add(context, calls, methods)
        direct.update(one.direct)
    names = [one.name for one in services]
    add_health(context, names, methods)
    reflecting = reflection.aio.ReflectionServicer([*names, HEALTH, reflection.SERVICE_NAME])
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflecting, methods)  # type: ignore[no-untyped-call]
    return methods, direct


PROTOCOL = ProtocolEntry("grpc", "grpc", start)
