"""The client's gRPC side: the same requests and answers over resnet.v1.Classifier."""

from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from service.client.outcome import ConnectionFailed, ModelInfo
from service.client.tls import ClientTls
from service.errors import BadRequest, DeadlinePassed, Internal, ServiceError, find_error
from service.pb import classifier_pb2 as pb
from service.pb import classifier_pb2_grpc as pb_grpc
from service.types import (
    ActivationMap,
    Box,
    Classification,
    ClassifyOptions,
    ModelRef,
    Prediction,
    Timings,
    TtaUse,
)
from service.version import NAME, find_version

MAX_MESSAGE_BYTES = 64 << 20


class GrpcTransport:
    """Speaks gRPC to one server; raises ServiceError, ConnectionFailed among them."""

    def __init__(self, url: str, api_key: str | None, tls: ClientTls | None = None) -> None:
        self._channel = open_channel(url, tls=tls)
        self._classifier = pb_grpc.ClassifierStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)
        self._metadata = (("authorization", f"Bearer {api_key}"),) if api_key else ()

    async def classify(
        self, image: bytes, options: ClassifyOptions, timeout_s: float, request_id: str | None
    ) -> Classification:
        """One unary call."""
        metadata = (*self._metadata, *((("x-request-id", request_id),) if request_id else ()))
        try:
            request = write_request(image, options)
        except (TypeError, ValueError) as err:  # what no field holds, such as a top_k of -1
            raise BadRequest(f"an option cannot be sent: {err}") from err
        try:
            answer = await self._classifier.Classify(request, timeout=timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as err:
            raise read_error(err) from err
        return read_classification(answer)

    async def list_models(self, timeout_s: float) -> list[ModelInfo]:
        """Ask which models answer."""
        try:
            request = pb.ListModelsRequest()
            answer = await self._classifier.ListModels(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as err:
            raise read_error(err) from err
        return [_read_model(model) for model in answer.models]

    async def is_ready(self, timeout_s: float) -> bool:
        """Whether the health service says SERVING; False also when nobody answers."""
        try:
            answer = await self._health.Check(  # type: ignore[attr-defined]  # the stubs lack it
                health_pb2.HealthCheckRequest(), timeout=timeout_s
            )
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


def open_channel(
    url: str, more: Sequence[tuple[str, int]] = (), tls: ClientTls | None = None
) -> grpc.aio.Channel:
    """A channel to grpc(s)://host:port; `more` channel arguments."""
    scheme, _, target = url.partition("://")
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.primary_user_agent", f"{NAME}-client/{find_version()}"),
        *more,
    ]
    if scheme == "grpcs":
        return grpc.aio.secure_channel(
            target, grpc.ssl_channel_credentials(*(tls or ClientTls()).read()), options
        )
    return grpc.aio.insecure_channel(target, options)


def write_request(image: bytes, options: ClassifyOptions) -> pb.ClassifyRequest:
    """The message that asks for `options`; a field left out means what the model's card says."""
    request = pb.ClassifyRequest(
        image=image,
        model=options.model,
        top_k=options.top_k,
        tta=options.tta or "",
        scales=options.scales or (),
        merge=options.merge or "",
        pool=options.pool or "",
        map=options.wants_map,
        logits=options.wants_logits,
        precision=options.precision or "",
        priority=options.priority,
    )
    if options.map_class is not None:
        setattr(request, "class", options.map_class)  # a keyword in Python, a field in the contract
    return request


def read_classification(answer: pb.ClassifyResponse) -> Classification:
    """A Classification from the answer's message."""
    times = answer.timings_ms
    return Classification(
        request_id=answer.request_id,
        model=ModelRef(answer.model.name, answer.model.version, answer.model.digest),
        predictions=tuple(Prediction(one.index, one.label, one.probability) for one in answer.predictions),
        tta=TtaUse(answer.tta.asked, answer.tta.used, answer.tta.views),
        timings_ms=Timings(times.decode, times.queue, times.infer, times.total),
        logits=tuple(answer.logits) or None,
        map=_read_map(answer.map) if answer.HasField("map") else None,
    )


def _read_map(heat: pb.ClassifyResponse.Map) -> ActivationMap:
    rows = tuple(tuple(row.values) for row in heat.array)
    box = Box(heat.box.left, heat.box.top, heat.box.right, heat.box.bottom)
    return ActivationMap(heat.png, rows, getattr(heat, "class"), box)


def _read_model(model: pb.ListModelsResponse.Model) -> ModelInfo:
    labels, policies = tuple(model.labels), tuple(sorted(model.tta.cost_ms))
    return ModelInfo(model.name, model.version, model.default, labels, policies)


def read_error(err: grpc.aio.AioRpcError) -> ServiceError:
    """The ServiceError a status stands for: by google.rpc.ErrorInfo where there is one, else by code."""
    status = rpc_status.from_call(err)  # type: ignore[arg-type]  # stubs know only the blocking call
    slug, retry_after_s = "", None
    for detail in status.details if status else ():
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            slug = info.reason
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    made = (find_error(slug) if slug else _by_code(err.code()))(err.details() or err.code().name)
    made.retry_after_s = retry_after_s
    return made


def _by_code(code: grpc.StatusCode) -> type[ServiceError]:
    # A server that stops cancels calls that it had not begun; what this client cancels raises no error here.
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return ConnectionFailed
    return DeadlinePassed if code is grpc.StatusCode.DEADLINE_EXCEEDED else Internal
