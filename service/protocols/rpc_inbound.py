"""What every gRPC call has on its stream: it reads messages within their time and size, and ends once."""

import time
from dataclasses import dataclass

import grpc

from service.admission import Lease
from service.classifier import Classifier
from service.errors import BadRequest, RequestTimeout, ServiceError
from service.protocols.h2.stream import Stream
from service.protocols.rpc_calls import Calls
from service.protocols.rpc_errors import find_code
from service.protocols.rpc_wire import ENCODINGS, CallHead, MessageReader, inflate
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class CallDesk:
    """What every call of a server needs. `max_message_bytes`: as received, and inflated."""

    classifier: Classifier
    settings: Settings
    calls: Calls
    max_message_bytes: int


class Inbound:
    """Messages as they come in; a subclass takes them, and says when it has."""

    def __init__(self, desk: CallDesk, stream: Stream, head: CallHead, caller: str) -> None:
        self.desk, self.stream, self.head, self.caller = desk, stream, head, caller
        self._reader = MessageReader()
        self._lease: Lease | None = None
        self._owed_bytes = 0
        self._message_since = time.monotonic()
        self.is_over = False

    def take(self, message: bytes, *, is_compressed: bool) -> None:
        """A message is whole."""
        raise NotImplementedError

    def refuse(self, code: grpc.StatusCode, details: str, error: ServiceError | None = None) -> None:
        """The call ends with that status; `error` is why, where it is one of ours."""
        raise NotImplementedError

    def stop(self, error: ServiceError) -> None:
        """End it before its time."""
        raise NotImplementedError

    @property
    def is_behind(self) -> bool:
        """Messages wait for somebody to take them: the sender must wait, too."""
        return False

    def feed(self, chunk: bytes) -> None:
        """See h2.stream.Handler."""
        self._owed_bytes += len(chunk)
        while chunk and not self.is_over:
            if self._reader.size_bytes is None:
                self._message_since = self.stream.read_at
                chunk = self._reader.read_prefix(chunk)
                if self._reader.size_bytes is None or not self._check_prefix(self._reader.size_bytes):
                    break
                if self._reader.size_bytes:
                    continue
            message, chunk = self._reader.read_content(chunk)
            if message is not None:
                self.take(message, is_compressed=self._reader.is_compressed)
        self.settle()

    def settle(self) -> None:
        """Let the sender send as much again as was taken."""
        if self._owed_bytes and not self.is_behind and not self.is_over:
            owed, self._owed_bytes = self._owed_bytes, 0
            self.stream.credit(owed)

    def release(self) -> None:
        """The message that was read last is not held here any more."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def tell(self, error: ServiceError) -> None:
        """End the call with an error of ours."""
        self.refuse(find_code(error), error.detail, error)

    def find_delay(self, now: float) -> ServiceError | None:
        """Why a message is not waited for any more: nothing of it came for too long, or never its end."""
        settings = self.desk.settings
        silence_s, whole_s = settings.body_timeout_s, settings.request_timeout_s
        if now - self.stream.read_at > silence_s:
            return RequestTimeout(f"no message in {silence_s:g} s")
        if now - self._message_since > whole_s:
            return RequestTimeout(f"no end of a message in {whole_s:g} s")
        return None

    def inflate(self, message: bytes) -> bytes:
        """A compressed message as it was; raises ServiceError."""
        if self.head.encoding not in ENCODINGS:
            raise BadRequest("a compressed message without grpc-encoding")
        return inflate(message, self.head.encoding, self.desk.max_message_bytes)

    def _check_prefix(self, size_bytes: int) -> bool:
        """Hold room for a message of that size, of which nothing has come."""
        if size_bytes > self.desk.max_message_bytes:
            limit = self.desk.max_message_bytes
            detail = f"the message has {size_bytes} bytes, the limit is {limit} (SERVE_MAX_IMAGE_BYTES)"
            self.refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, detail)
            return False
        try:
            self.release()
            self._lease = self.desk.classifier.reserve(size_bytes)
        except ServiceError as error:
            self.tell(error)
            return False
        return True
