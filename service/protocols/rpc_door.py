"""Where every gRPC call enters while keys are on: it is asked for its key before its message is read."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio

from service.access.gate import ANY, Gate, Need, read_credential
from service.errors import ServiceError
from service.protocols.rpc_calls import CALLER, Call, Calls, ServicerContext

Details = grpc.HandlerCallDetails
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"

# Health is for probes and balancers, which have no keys; reflection tells what proto/ tells everybody.
PUBLIC_SERVICES = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")
PUBLIC_METHODS = frozenset(
    f"/inference.GRPCInferenceService/{name}" for name in ("ServerLive", "ServerReady")
)
CLASSIFYING = frozenset(
    {
        "/resnet.v1.Classifier/Classify",
        "/resnet.v1.Classifier/ClassifyStream",
        "/inference.GRPCInferenceService/ModelInfer",
        "/inference.GRPCInferenceService/ModelStreamInfer",
    }
)


def find_need(method: str) -> Need | None:
    """The scope for `method`, ANY for whoever has a key, None for everybody."""
    if method.startswith(PUBLIC_SERVICES) or method in PUBLIC_METHODS:
        return None
    return "classify" if method in CLASSIFYING else ANY


class RpcDoor(grpc.aio.ServerInterceptor):
    """Lets a call through, or answers it with UNAUTHENTICATED or PERMISSION_DENIED."""

    def __init__(self, gate: Gate, calls: Calls) -> None:
        self._gate, self._calls = gate, calls

    async def intercept_service(
        self, continuation: Callable[[Details], Awaitable[Handler]], handler_call_details: Details
    ) -> Handler:
        """The method's own handler; one that reads nothing for a caller who may not."""
        method: str = handler_call_details.method
        need = find_need(method)
        if need is not None:
            try:
                credential = _read_credential(handler_call_details)
                CALLER.set(self._gate.require(credential, need).id)  # a call has a task of its own
            except ServiceError as error:
                return self._make_refusal(method, error)
        return await continuation(handler_call_details)

    def _make_refusal(self, method: str, error: ServiceError) -> Handler:
        route = method if method in CLASSIFYING else "unknown"

        async def refuse(_: Call) -> None:
            raise error

        async def answer(_: Any, context: ServicerContext) -> None:
            await self._calls.answer(route, context, refuse)

        return grpc.stream_stream_rpc_method_handler(answer)


def _read_credential(details: Details) -> str | None:
    found = {key: value for key, value in details.invocation_metadata or () if isinstance(value, str)}
    return read_credential(found.get("authorization"), found.get("x-api-key"))
