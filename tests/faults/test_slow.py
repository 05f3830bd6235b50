"""A thousand slow or silent connections and gRPC calls are cut in time, and good callers notice nothing."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import grpc
import grpc.aio
import pytest

from service.pb import classifier_pb2 as pb
from service.pb import classifier_pb2_grpc as pb_grpc
from tests.faults import FAULT_SECONDS
from tests.faults.callers import (
    IMAGES,
    PATIENCE_S,
    Caller,
    Ledger,
    expect_counts,
    keep_asking,
    read_answer,
    split_address,
    write_head,
)
from tests.serving import Service, run_service

SILENT, IN_HEADERS, IN_BODY, DRIPPING = 400, 300, 250, 50
SILENT_RPC, SILENT_CALLS = 100, 200
IS_LONG = FAULT_SECONDS >= 60
# The long form has the defaults, 10 s and 30 s.
HEADER_S, BODY_S = (10.0, 30.0) if IS_LONG else (1.5, 2.5)
DRIP_TIMEOUT_S = 40.0 if IS_LONG else 4.0
GOOD_CALLERS = 4


class SlowCallers:
    """Each method is one connection, from its first byte to its end by the server."""

    def __init__(self, service: Service, ledger: Ledger) -> None:
        self._address, self._rpc, self._ledger = split_address(service), service.grpc, ledger
        self.ends: Counter[str] = Counter()

    async def stay_silent(self, first_bytes: bytes, kind: str) -> None:
        """Send the beginning of the headers, or nothing, and wait."""
        reader, writer = await asyncio.open_connection(*self._address)
        writer.write(first_bytes)
        answer = await reader.read()
        self.ends[f"{kind}: {answer[9:12].decode()}"] += 1
        writer.close()

    async def connect_rpc(self) -> None:
        """Say nothing on the gRPC port."""
        reader, writer = await asyncio.open_connection(*self._rpc.split(":"))
        while await reader.read(1024):  # the server's settings, then its end
            pass
        self.ends["gRPC: closed"] += 1
        writer.close()

    async def call_silently(self) -> None:
        """Begin calls and send no message."""
        async with grpc.aio.insecure_channel(self._rpc) as channel:
            await asyncio.gather(*(self._call(pb_grpc.ClassifierStub(channel)) for _ in range(SILENT_CALLS)))

    async def _call(self, stub: "pb_grpc.ClassifierAsyncStub") -> None:
        async def send() -> AsyncIterator[pb.ClassifyStreamRequest]:
            await asyncio.Event().wait()
            yield pb.ClassifyStreamRequest()

        try:
            await anext(aiter(stub.ClassifyStream(send())))
        except grpc.aio.AioRpcError as error:
            self.ends[f"gRPC call: {error.code().name}"] += 1

    async def stop_in_body(self) -> None:
        """Send half of the body and wait."""
        id = self._ledger.begin()
        reader, writer = await asyncio.open_connection(*self._address)
        writer.write(write_head(id, len(IMAGES[1])) + IMAGES[1][: len(IMAGES[1]) // 2])
        status, head, _ = await read_answer(reader)
        assert b"connection: close" in head
        assert await reader.read() == b""
        self._ledger.end(id, str(status))
        self.ends[f"in body: {status}"] += 1
        writer.close()

    async def drip(self) -> None:
        """A byte of the body at a time, never silent, past the request's own deadline."""
        id = self._ledger.begin()
        reader, writer = await asyncio.open_connection(*self._address)
        writer.write(write_head(id, len(IMAGES[1]), timeout_s=DRIP_TIMEOUT_S))
        answer = asyncio.create_task(read_answer(reader))
        while not answer.done():
            writer.write(b"x")
            await asyncio.wait([answer], timeout=0.5)
        status, _, _ = await answer
        self._ledger.end(id, str(status))
        self.ends[f"dripping: {status}"] += 1
        writer.close()


async def keep_calling(address: str, goes_on: Callable[[], bool]) -> int:
    """Call after call while `goes_on`; how many were not answered with a prediction."""
    failed = 0
    async with grpc.aio.insecure_channel(address) as channel:
        stub = pb_grpc.ClassifierStub(channel)
        while goes_on():
            try:
                answer = await stub.Classify(pb.ClassifyRequest(image=IMAGES[0]), timeout=PATIENCE_S)
                failed += not answer.predictions
            except grpc.aio.AioRpcError:
                failed += 1
            await asyncio.sleep(0.02)
    return failed


async def be_slow(service: Service, ledger: Ledger) -> Counter[str]:
    slow, is_over = SlowCallers(service, ledger), False
    half = write_head("never", 1)[:40]
    good = [
        asyncio.create_task(keep_asking(Caller(service, ledger), lambda: not is_over, 0.02))
        for _ in range(GOOD_CALLERS)
    ]
    good_rpc = asyncio.create_task(keep_calling(service.grpc, lambda: not is_over))
    await asyncio.gather(
        *(slow.stay_silent(b"", "silent") for _ in range(SILENT)),
        *(slow.stay_silent(half, "in headers") for _ in range(IN_HEADERS)),
        *(slow.stop_in_body() for _ in range(IN_BODY)),
        *(slow.drip() for _ in range(DRIPPING)),
        *(slow.connect_rpc() for _ in range(SILENT_RPC)),
        slow.call_silently(),
    )
    is_over = True
    await asyncio.gather(*good)
    slow.ends["good gRPC calls that failed"] = await good_rpc
    return slow.ends


@pytest.mark.timeout(300)
def test_slow_and_silent_connections_hurt_only_themselves() -> None:
    with run_service(max_wait_ms=50_000, header_timeout_s=HEADER_S, body_timeout_s=BODY_S) as service:
        ledger = Ledger.open(service)
        began = time.monotonic()
        ends = asyncio.run(be_slow(service, ledger))
        print(f"{sum(ends.values())} slow connections ended within {time.monotonic() - began:.1f} s")
        assert ends == {
            "silent: ": SILENT,
            "in headers: 408": IN_HEADERS,
            "in body: 408": IN_BODY,
            "dripping: 408": DRIPPING,
            "gRPC: closed": SILENT_RPC,
            "gRPC call: DEADLINE_EXCEEDED": SILENT_CALLS,
            "good gRPC calls that failed": 0,
        }
        counts = ledger.close()
        assert counts == {"408": IN_BODY + DRIPPING, "200": counts["200"]}
        assert counts["200"] > len(IMAGES) + GOOD_CALLERS
        expect_counts(service, counts)
        expect_counts(service, Counter({"408": IN_HEADERS}), "unknown")
