"""resnet.v1.Classifier: the service's own gRPC interface, answered by the one Classifier."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any, NoReturn, cast

from service.errors import Draining, ServiceError
from service.pb import classifier_pb2 as pb
from service.pb import classifier_pb2_grpc as pb_grpc
from service.protocols.base import ProtocolContext
from service.protocols.patience import wait_out
from service.protocols.rpc_calls import Call, Calls, ServicerContext
from service.protocols.rpc_classify import ClassifyCall
from service.protocols.rpc_messages import read_request, write_answer, write_error, write_models
from service.protocols.rpc_service import RpcServer, RpcService
from service.protocols.rpc_stream import OrderedAnswers, Window
from service.types import ClassifyRequest

# Enough images ahead to fill the largest batches (SERVE_MAX_BATCH_VIEWS is 64) with one stream alone.
STREAM_WINDOW = 64
# A stream holds at most this share of SERVE_MAX_INFLIGHT_BYTES, so that one cannot starve the others.
STREAM_SHARE = 0.125

NAME = pb.DESCRIPTOR.services_by_name["Classifier"].full_name


class ClassifierServicer:
    """One per frontend; its methods are those of the generated servicer."""

    def __init__(self, context: ProtocolContext, calls: Calls) -> None:
        self._settings, self._classifier, self._calls = context.settings, context.classifier, calls

    async def Classify(self, request: pb.ClassifyRequest, context: ServicerContext) -> NoReturn:  # noqa: N802
        """Named for the generated code, and never called: rpc_classify.py answers."""
        raise NotImplementedError

    async def ClassifyStream(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ClassifyStreamRequest], context: ServicerContext
    ) -> None:
        """Many images, in order. A coroutine, not a generator: cancelling it ends its images at once."""

        async def work(call: Call) -> None:
            window = Window(STREAM_WINDOW, int(STREAM_SHARE * self._settings.max_inflight_bytes))
            silence_s = self._settings.keepalive_timeout_s

            def answer(
                index: int, item: pb.ClassifyStreamRequest
            ) -> Coroutine[Any, Any, pb.ClassifyStreamResponse]:
                return self._answer_item(call, index, item)

            async def tell(message: pb.ClassifyStreamResponse) -> None:
                try:
                    await context.write(message)
                except Exception as error:  # the library has no name for it: the caller left
                    raise asyncio.CancelledError from error

            await OrderedAnswers(aiter(request_iterator), answer, _size_of, window, silence_s).run(tell)

        await self._calls.answer(f"/{NAME}/ClassifyStream", context, work)

    async def ListModels(  # noqa: N802
        self, request: pb.ListModelsRequest, context: ServicerContext
    ) -> pb.ListModelsResponse:
        """The versions that answer now."""

        async def work(_: Call) -> pb.ListModelsResponse:
            return write_models(self._classifier.list_models())

        return await self._calls.answer(f"/{NAME}/ListModels", context, work)

    async def _answer_item(
        self, call: Call, index: int, item: pb.ClassifyStreamRequest
    ) -> pb.ClassifyStreamResponse:
        request_id = f"{call.request_id[:48]}.{index}"
        message = pb.ClassifyStreamResponse(index=index, id=item.id)
        if self._classifier.is_draining:
            raise Draining("this server is stopping, send the rest to another one", retry_after_s=1.0)
        try:
            asked = read_request(self._settings, call, request_id, item.request)
            del item  # its image is in `asked` now, and waits there once
            message.response.CopyFrom(await self._classify(asked, self._settings.request_timeout_s))
        except Draining:
            raise  # ends the stream: another server answers the rest
        except ServiceError as error:
            message.error.CopyFrom(write_error(error))
        return message

    async def _classify(self, asked: ClassifyRequest, patience_s: float) -> pb.ClassifyResponse:
        async def attempt() -> pb.ClassifyResponse:
            with self._classifier.reserve(len(asked.image)):
                return write_answer(await self._classifier.classify(asked))

        return await wait_out(attempt, min(asked.deadline, time.monotonic() + patience_s))


def _size_of(item: pb.ClassifyStreamRequest) -> int:
    return item.ByteSize()


def _add(context: ProtocolContext, calls: Calls, server: RpcServer) -> None:
    servicer = cast(Any, ClassifierServicer(context, calls))  # their context is ours, not the library's
    pb_grpc.add_ClassifierServicer_to_server(servicer, cast(Any, server))


RPC_SERVICE = RpcService(NAME, _add, {f"/{NAME}/Classify": ClassifyCall})
