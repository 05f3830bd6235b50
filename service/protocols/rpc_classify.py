"""resnet.v1.Classifier/Classify: the gRPC sibling of rest/classify.py, called and never awaited.

The stream calls it as bytes come, the Classifier when the answer is there; there is no task, future or timer
for a call, and an answer leaves with all others of its turn.
"""

import asyncio

import grpc
from google.protobuf.message import DecodeError

from service.classifier import Cancellable
from service.errors import BadRequest, ServiceError
from service.flights import Landing
from service.metrics import ABORTED
from service.pb import classifier_pb2 as pb
from service.protocols.h2.stream import Stream
from service.protocols.rpc_calls import Call
from service.protocols.rpc_errors import REQUEST_ID_KEY, find_code, make_trailers
from service.protocols.rpc_inbound import CallDesk, Inbound
from service.protocols.rpc_messages import read_request, write_answer
from service.protocols.rpc_wire import CallHead, Metadata, write_message, write_opening, write_trailers


class ClassifyCall(Inbound):
    """One image."""

    def __init__(self, desk: CallDesk, stream: Stream, head: CallHead, caller: str) -> None:
        super().__init__(desk, stream, head, caller)
        self._call = Call(head, caller, head.timeout_s)
        self._message: bytes | None = None
        self._is_compressed = False
        self._flight: Cancellable | None = None
        desk.calls.begin()

    def take(self, message: bytes, *, is_compressed: bool) -> None:
        """See Inbound."""
        if self._message is not None:
            self.tell(BadRequest("the call has more than one message"))
            return
        self._message, self._is_compressed = message, is_compressed

    def end(self) -> None:
        """See h2.stream.Handler."""
        if self.is_over:
            return
        if self._message is None:
            fault = "the call ended within a message" if self._reader.is_amid else "the call has no message"
            self.tell(BadRequest(fault))
        elif self._is_compressed:
            self._flight = asyncio.get_running_loop().create_task(self._launch_inflated(self._message))
            self._message = None
        else:
            message, self._message = self._message, None
            self._launch(message)

    def lose(self) -> None:
        """See h2.stream.Handler."""
        if not self.is_over:
            self._finish(ABORTED)

    def watch(self, now: float) -> None:
        """See h2.stream.Handler."""
        delay = None if self.stream.is_remote_ended or self.is_over else self.find_delay(now)
        if delay is not None:
            self.tell(delay)

    def stop(self, error: ServiceError) -> None:
        """End it before its time."""
        self.tell(error)

    def refuse(self, code: grpc.StatusCode, details: str, error: ServiceError | None = None) -> None:
        """See Inbound."""
        if self.is_over:
            return
        id = self._call.request_id
        metadata: Metadata = ((REQUEST_ID_KEY, id),) if error is None else make_trailers(error, id)
        self._finish(code.name)
        self.stream.end(write_trailers(code, details, metadata, is_alone=True))

    def _launch(self, message: bytes) -> None:
        try:
            try:
                request = pb.ClassifyRequest.FromString(message)
            except DecodeError:
                raise BadRequest("the message is not of the type that this method takes") from None
            del message  # its image is in the request now
            asked = read_request(self.desk.settings, self._call, self._call.request_id, request)
            self._flight = self.desk.classifier.launch(asked, self._land)
        except ServiceError as error:
            self.tell(error)
        except Exception:
            self._report()

    async def _launch_inflated(self, message: bytes) -> None:
        try:
            inflated = await asyncio.to_thread(self.inflate, message)
        except ServiceError as error:
            self._flight = None
            if not self.is_over:
                code = find_code(error)
                is_size = code is grpc.StatusCode.INVALID_ARGUMENT and error.slug == "too-large"
                self.refuse(grpc.StatusCode.RESOURCE_EXHAUSTED if is_size else code, error.detail, error)
            return
        self._flight = None
        if not self.is_over:
            self._launch(inflated)

    def _land(self, landing: Landing) -> None:
        self._flight = None
        if self.is_over:
            return
        if isinstance(landing, ServiceError):
            self.tell(landing)
            return
        try:
            data = write_message(write_answer(landing).SerializeToString())
        except Exception:
            self._report()
            return
        self._finish(grpc.StatusCode.OK.name)
        metadata = ((REQUEST_ID_KEY, self._call.request_id),)
        trailers = write_trailers(grpc.StatusCode.OK, "", metadata, is_alone=False)
        self.stream.respond(write_opening(), data, trailers)

    def _report(self) -> None:
        self.tell(self.desk.calls.report(self.head.route, self._call))

    def _finish(self, code: str) -> None:
        self.is_over = True
        self.release()
        self._message = None
        flight, self._flight = self._flight, None
        if flight is not None:
            flight.cancel()
        self.desk.calls.end(self.head.route, self._call, code)
