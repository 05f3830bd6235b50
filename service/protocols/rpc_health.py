"""grpc.health.v1: readiness for whoever asks, and for as long as they watch.

Written here because the library's servicer forgets every watcher of a name when one of them leaves.
"""

from typing import Any, cast

from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.protocols.base import ProtocolContext
from service.protocols.rpc_calls import ServicerContext
from service.protocols.rpc_service import RpcServer

NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_Response = health_pb2.HealthCheckResponse


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Every service, and the server as a whole (""), is SERVING exactly while /readyz says so."""

    def __init__(self, context: ProtocolContext, known: frozenset[str]) -> None:
        self._classifier, self._known = context.classifier, known

    async def Check(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """NOT_FOUND for a service that does not exist, as the protocol has it."""
        if request.service not in self._known:
            await context.abort(StatusCode.NOT_FOUND, f"no service {request.service[:80]!r} here")
        return self._describe(request.service)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: ServicerContext
    ) -> None:
        """The status now and at every change, until the caller leaves."""
        told = None
        while True:
            seen = self._classifier.generation
            current = self._describe(request.service)
            if current != told:
                told = current
                await context.write(current)
            await self._classifier.wait_change(seen)

    def _describe(self, service: str) -> health_pb2.HealthCheckResponse:
        if service not in self._known:
            return _Response(status=_Response.SERVICE_UNKNOWN)
        return _Response(status=_Response.SERVING if self._classifier.is_ready else _Response.NOT_SERVING)


def add_health(context: ProtocolContext, names: list[str], server: RpcServer) -> None:
    """Answer for the services `names`."""
    servicer = HealthServicer(context, frozenset([*names, NAME, ""]))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, cast(Any, server))
