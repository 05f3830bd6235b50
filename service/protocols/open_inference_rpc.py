"""inference.GRPCInferenceService: the Open Inference Protocol v2 over gRPC, answered as over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar, cast

from google.protobuf import json_format
from google.protobuf.message import Message

from service.errors import BadRequest, ServiceError, UnknownModel
from service.pb import open_inference_pb2 as pb
from service.pb import open_inference_pb2_grpc as pb_grpc
from service.protocols.base import ProtocolContext
from service.protocols.open_inference import (
    InferCall,
    Parameter,
    check_outputs,
    find_model,
    infer,
    name_model,
    read_classification,
    refuse_shared_memory,
)
from service.protocols.open_inference_models import (
    describe_config,
    describe_model,
    describe_server,
    describe_statistics,
    list_index,
    list_versions,
)
from service.protocols.open_inference_tensors import (
    OUTPUT,
    OutputAsked,
    check_count,
    check_input,
    split_raw,
)
from service.protocols.rpc_calls import Call, Calls, ServicerContext
from service.protocols.rpc_classifier import STREAM_SHARE, STREAM_WINDOW
from service.protocols.rpc_service import RpcServer, RpcService
from service.protocols.rpc_stream import OrderedAnswers, Window

NAME = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
Answer = TypeVar("Answer", bound=Message)


class InferenceServicer:
    """One per frontend; its methods are those of the generated servicer."""

    def __init__(self, context: ProtocolContext, calls: Calls) -> None:
        self._context, self._calls = context, calls

    async def ServerLive(  # noqa: N802
        self, request: pb.ServerLiveRequest, context: ServicerContext
    ) -> pb.ServerLiveResponse:
        """The process answers."""
        return await self._tell("ServerLive", context, pb.ServerLiveResponse, lambda: {"live": True})

    async def ServerReady(  # noqa: N802
        self, request: pb.ServerReadyRequest, context: ServicerContext
    ) -> pb.ServerReadyResponse:
        """At least one worker is up, and the server is not stopping."""

        def tell() -> dict[str, Any]:
            return {"ready": self._context.classifier.is_ready}

        return await self._tell("ServerReady", context, pb.ServerReadyResponse, tell)

    async def ModelReady(  # noqa: N802
        self, request: pb.ModelReadyRequest, context: ServicerContext
    ) -> pb.ModelReadyResponse:
        """Whether a worker of the model is up: of one that nobody knows, none is."""

        def tell() -> dict[str, Any]:
            try:
                return {"ready": find_model(self._context, request.name, request.version).workers > 0}
            except UnknownModel:
                return {"ready": False}

        return await self._tell("ModelReady", context, pb.ModelReadyResponse, tell)

    async def ServerMetadata(  # noqa: N802
        self, request: pb.ServerMetadataRequest, context: ServicerContext
    ) -> pb.ServerMetadataResponse:
        """Name, version and extensions."""
        return await self._tell("ServerMetadata", context, pb.ServerMetadataResponse, describe_server)

    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: ServicerContext
    ) -> pb.ModelMetadataResponse:
        """The model's tensors."""

        def tell() -> dict[str, Any]:
            model = find_model(self._context, request.name, request.version)
            return describe_model(model, list_versions(self._context.classifier.list_models(), model.name))

        return await self._tell("ModelMetadata", context, pb.ModelMetadataResponse, tell)

    async def ModelConfig(  # noqa: N802
        self, request: pb.ModelConfigRequest, context: ServicerContext
    ) -> pb.ModelConfigResponse:
        """The model's tensors, as a configuration file says it."""

        def tell() -> dict[str, Any]:
            return {"config": describe_config(find_model(self._context, request.name, request.version))}

        return await self._tell("ModelConfig", context, pb.ModelConfigResponse, tell)

    async def ModelStatistics(  # noqa: N802
        self, request: pb.ModelStatisticsRequest, context: ServicerContext
    ) -> pb.ModelStatisticsResponse:
        """What was inferred since the service started."""

        async def work(_: Call) -> pb.ModelStatisticsResponse:
            models = [one for one in self._context.classifier.list_models() if one.card]
            if request.name:
                models = [find_model(self._context, request.name, request.version)]
            told = []
            for model in models:
                totals = await asyncio.to_thread(self._context.metrics.sum_totals, model.name)
                told.append(describe_statistics(model, totals))
            return _fill(pb.ModelStatisticsResponse, {"model_stats": told})

        return await self._calls.answer(f"/{NAME}/ModelStatistics", context, work)

    async def RepositoryIndex(  # noqa: N802
        self, request: pb.RepositoryIndexRequest, context: ServicerContext
    ) -> pb.RepositoryIndexResponse:
        """Every model version known, and its state."""

        def tell() -> dict[str, Any]:
            return {"models": list_index(self._context.classifier.list_models(), is_ready_only=request.ready)}

        return await self._tell("RepositoryIndex", context, pb.RepositoryIndexResponse, tell)

    async def ModelInfer(  # noqa: N802
        self, request: pb.ModelInferRequest, context: ServicerContext
    ) -> pb.ModelInferResponse:
        """Classify the images of one tensor."""

        async def work(call: Call) -> pb.ModelInferResponse:
            return await self._infer(call, call.request_id, request)

        return await self._calls.answer(f"/{NAME}/ModelInfer", context, work)

    async def ModelStreamInfer(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ModelInferRequest], context: ServicerContext
    ) -> None:
        """Many requests, answered in order; an error in place of an answer, and the stream goes on."""

        async def work(call: Call) -> None:
            async def answer(index: int, request: pb.ModelInferRequest) -> pb.ModelStreamInferResponse:
                return await self._answer_item(call, index, request)

            async def tell(message: pb.ModelStreamInferResponse) -> None:
                try:
                    await context.write(message)
                except Exception as error:  # the library has no name for it: the caller left
                    raise asyncio.CancelledError from error

            share_bytes = int(STREAM_SHARE * self._context.settings.max_inflight_bytes)
            window, size_of = Window(STREAM_WINDOW, share_bytes), pb.ModelInferRequest.ByteSize
            silence_s = self._context.settings.keepalive_timeout_s
            await OrderedAnswers(aiter(request_iterator), answer, size_of, window, silence_s).run(tell)

        await self._calls.answer(f"/{NAME}/ModelStreamInfer", context, work)

    async def _answer_item(
        self, call: Call, index: int, request: pb.ModelInferRequest
    ) -> pb.ModelStreamInferResponse:
        try:
            response = await self._infer(call, f"{call.request_id[:48]}.{index}", request)
            response.parameters["triton_final_response"].bool_param = True  # one request, one answer
            return pb.ModelStreamInferResponse(infer_response=response)
        except ServiceError as error:
            partial = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
            return pb.ModelStreamInferResponse(error_message=error.detail, infer_response=partial)

    async def _infer(
        self, call: Call, request_id: str, request: pb.ModelInferRequest
    ) -> pb.ModelInferResponse:
        settings = self._context.settings
        call.model = name_model(request.model_name, request.model_version)
        with self._context.classifier.reserve(request.ByteSize()):
            asked = InferCall(
                model=request.model_name,
                version=request.model_version,
                id=request.id,
                images=_read_images(request),
                output=_read_output(request),
                parameters={name: _read_parameter(name, one) for name, one in request.parameters.items()},
                request_id=request_id,
                deadline=call.limit_deadline(settings.request_timeout_s, settings.max_request_timeout_s),
                protocol="grpc",
                caller=call.caller,
            )
            answer = await infer(self._context, asked)
        output = answer.output
        response = pb.ModelInferResponse(
            model_name=answer.model.name,
            model_version=str(answer.model.version),
            id=request.id,
            outputs=[
                pb.ModelInferResponse.InferOutputTensor(
                    name=OUTPUT, datatype=output.datatype, shape=output.shape
                )
            ],
            raw_output_contents=[output.to_bytes()],
        )
        for name, value in answer.parameters.items():
            kind = "string_param" if isinstance(value, str) else "int64_param"
            setattr(response.parameters[name], kind, value)
        return response

    async def _tell(
        self, call: str, context: ServicerContext, kind: type[Answer], tell: Callable[[], dict[str, Any]]
    ) -> Answer:
        async def work(_: Call) -> Answer:
            return _fill(kind, tell())

        return await self._calls.answer(f"/{NAME}/{call}", context, work)


def _fill(kind: type[Answer], told: dict[str, Any]) -> Answer:
    return json_format.ParseDict(told, kind())


def _read_images(request: pb.ModelInferRequest) -> list[bytes]:
    if len(request.inputs) != 1:
        raise BadRequest(f"the request has {len(request.inputs)} inputs, it must have one", "inputs")
    one = request.inputs[0]
    shape = tuple(one.shape)
    check_input(one.name, one.datatype, shape)
    refuse_shared_memory(one.parameters)
    if request.raw_input_contents:
        if len(request.raw_input_contents) != 1 or one.HasField("contents"):
            raise BadRequest("raw_input_contents must have one element, and no input contents", "inputs")
        return split_raw(one.datatype, shape, request.raw_input_contents[0])
    if one.datatype == "BYTES":
        return check_count(list(one.contents.bytes_contents), shape)
    try:
        return split_raw(one.datatype, shape, bytes(one.contents.uint_contents))
    except ValueError as err:
        raise BadRequest("uint_contents are not numbers of 0..255", "inputs") from err


def _read_output(request: pb.ModelInferRequest) -> OutputAsked:
    check_outputs([one.name for one in request.outputs])
    parameters = request.outputs[0].parameters if request.outputs else {}
    refuse_shared_memory(parameters)
    if "classification" not in parameters:
        return OutputAsked(is_binary=True)
    value = _read_parameter("classification", parameters["classification"])
    return OutputAsked(read_classification(value), is_binary=True)


def _read_parameter(name: str, given: pb.InferParameter) -> Parameter:
    kind = given.WhichOneof("parameter_choice")
    if kind is None:
        raise BadRequest(f"parameter {name[:40]!r} has no value", name)
    value: Parameter = getattr(given, kind)
    return value


def _add(context: ProtocolContext, calls: Calls, server: RpcServer) -> None:
    servicer = cast(Any, InferenceServicer(context, calls))  # their context is ours, not the library's
    pb_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, cast(Any, server))


RPC_SERVICE = RpcService(NAME, _add)
