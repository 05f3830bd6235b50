"""The gRPC side of the load: resnet.v1.Classifier/Classify, a channel and a connection for each caller."""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc.aio

from service.client.load import NO_ANSWER
from service.client.rpc import open_channel, write_request
from service.client.tls import ClientTls
from service.pb import classifier_pb2 as pb
from service.pb import classifier_pb2_grpc as pb_grpc
from service.types import ClassifyOptions


@dataclass(frozen=True, slots=True)
class RpcTarget:
    """Where the load goes: `url` grpc(s)://host:port; `requests` are sent in turn."""

    url: str
    requests: Sequence[pb.ClassifyRequest]
    metadata: tuple[tuple[str, str], ...] = ()
    tls: ClientTls | None = None

    @staticmethod
    def from_url(
        url: str,
        options: ClassifyOptions,
        bodies: Sequence[bytes],
        api_key: str | None = None,
        tls: ClientTls | None = None,
    ) -> "RpcTarget":
        """`bodies`: encoded images."""
        requests = [write_request(body, options) for body in bodies]
        metadata = (("authorization", f"Bearer {api_key}"),) if api_key else ()
        return RpcTarget(url, requests, metadata, tls)

    def connect(self) -> "_Caller":
        """A caller; its connection is opened at need."""
        return _Caller(self)


class _Caller:
    def __init__(self, target: RpcTarget) -> None:
        self._target = target
        self._channel = open_channel(target.url, (("grpc.use_local_subchannel_pool", 1),), target.tls)
        self._stub = pb_grpc.ClassifierStub(self._channel)

    async def ask(self, number: int) -> str:
        """Send request `number` and wait for its answer; returns the status code's name."""
        request = self._target.requests[number % len(self._target.requests)]
        try:
            await self._stub.Classify(request, metadata=self._target.metadata)
        except grpc.aio.AioRpcError as err:
            return NO_ANSWER if err.code() is grpc.StatusCode.UNAVAILABLE else err.code().name
        return grpc.StatusCode.OK.name

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()
