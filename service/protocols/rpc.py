"""The gRPC port: every service found in this room, health and reflection, behind limits that are all set.

gRPC cannot take a socket it did not open. The supervisor's socket only holds the port; each frontend's server
binds the same address with SO_REUSEPORT, and the kernel spreads connections over the frontends.
"""

import asyncio
import logging
import socket
from typing import Any

import grpc.aio
from grpc_reflection.v1alpha import reflection

import service.protocols
from models.catalog import find_entries
from service.protocols.base import ProtocolContext, ProtocolEntry
from service.protocols.rpc_calls import Calls
from service.protocols.rpc_door import RpcDoor
from service.protocols.rpc_health import NAME as HEALTH
from service.protocols.rpc_health import add_health
from service.protocols.rpc_intake import Intake
from service.protocols.rpc_service import RpcService
from service.settings import Settings
from service.tls import Certificates, TlsFiles, find_tls

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
NEVER_S = 86_400

log = logging.getLogger(__name__)


class RunningRpc:
    """The server of one frontend."""

    def __init__(self, server: grpc.aio.Server, calls: Calls) -> None:
        self._server, self._calls = server, calls

    async def drain(self, timeout_s: float) -> None:
        """Send clients elsewhere, finish what was accepted; who only watches health is not waited for."""
        # Two stops must not both run into their grace: the library then cancels calls of a server it has
        # destroyed already, and crashes. So the first one's never ends by itself.
        ending = asyncio.ensure_future(self._server.stop(timeout_s + NEVER_S))
        try:
            async with asyncio.timeout(timeout_s):
                await self._calls.wait_idle()
        except TimeoutError:
            log.warning("calls dropped at the end of the drain")
        await self._server.stop(None)
        await ending


async def start(context: ProtocolContext, sock: socket.socket) -> RunningRpc:
    """Serve on the address that `sock` is bound to. Raises OSError where it cannot be shared."""
    calls = Calls(context)
    server = grpc.aio.server(
        interceptors=[
            *([] if context.gate.is_open else [RpcDoor(context.gate, calls)]),
            Intake(calls, context.settings),  # last: it keeps what it is given, which must not be a refusal
        ],
        options=list_options(context.settings),
        maximum_concurrent_rpcs=context.settings.max_connections,
    )
    services = find_entries(service.protocols, "RPC_SERVICE", RpcService)
    for one in services:
        one.add(context, calls, server)
    names = [one.name for one in services]
    add_health(context, names, server)
    reflection.enable_server_reflection([*names, HEALTH, reflection.SERVICE_NAME], server)
    address = _format_address(sock)
    try:
        tls = find_tls(context.settings)
        if tls is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, make_credentials(tls))
    except RuntimeError as err:
        raise OSError(f"gRPC cannot listen on {address}") from err
    await server.start()
    return RunningRpc(server, calls)


def list_options(settings: Settings) -> list[tuple[str, Any]]:
    """The channel arguments of the server."""
    return [
        ("grpc.so_reuseport", 1),
        # Until the opening frames of HTTP/2, and of TLS before them, have come.
        ("grpc.server_handshake_timeout_ms", int(settings.header_timeout_s * 1000)),
        ("grpc.max_receive_message_length", settings.max_image_bytes + OVERHEAD_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.max_connection_age_ms", MAX_AGE_S * 1000),
        ("grpc.max_connection_age_grace_ms", MAX_AGE_GRACE_S * 1000),
        ("grpc.max_connection_idle_ms", IDLE_S * 1000),
        ("grpc.keepalive_time_ms", PING_S * 1000),
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT_S * 1000),
        (
            "grpc.http2.ping_timeout_ms",
            PING_TIMEOUT_S * 1000,
        ),  # else a minute, which counts more
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", CLIENT_PING_S * 1000),
    ]


def make_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """What the server shows, and asks of callers; at each handshake the library asks whether it changed."""
    first = files.read()

    def configure(found: Certificates) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(found.key, found.cert)], found.client_ca)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        changed = files.read_changed()
        return None if changed is None else configure(changed)

    return grpc.dynamic_ssl_server_credentials(
        configure(first),
        fetch,  # type: ignore[arg-type]  # None is "as before", which the stubs do not know
        require_client_authentication=first.client_ca is not None,
    )


def _format_address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"


PROTOCOL = ProtocolEntry("grpc", "grpc", start)
