"""A thousand callers who go away: in the middle of their headers or body, while queued, in their answer."""

import asyncio
import os
import signal
import socket

import pytest

from tests.faults.callers import (
    ABORT,
    IMAGES,
    Caller,
    Ledger,
    expect_counts,
    keep_asking,
    read_counts,
    split_address,
    sum_metric,
    wait_for,
    wait_for_children,
    write_head,
)
from tests.faults.engine import PYTHONPATH
from tests.serving import Service, run_service

EACH = 250
MAPS = 10  # their answers are larger than what the caller's socket takes
RECEIVE_BYTES = 4096
IMAGE = IMAGES[1]


class Leavers:
    """Callers who leave; every one of them is in the ledger."""

    def __init__(self, service: Service, ledger: Ledger) -> None:
        self._service, self._ledger = service, ledger
        self._address = split_address(service)

    async def leave_in_request(self, sent_bytes: int) -> None:
        """Send only so many bytes of a request, negative: all but so many."""
        id = self._ledger.begin()
        _, writer = await asyncio.open_connection(*self._address)
        writer.write((write_head(id, len(IMAGE)) + IMAGE)[:sent_bytes])
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        self._ledger.end(id, ABORT)

    async def leave_queued(self) -> None:
        """Send whole requests to an engine that stands still, and go once they are all queued."""
        (worker,) = await asyncio.to_thread(wait_for_children, self._service, "worker")
        os.kill(worker, signal.SIGUSR2)
        ids = [self._ledger.begin() for _ in range(EACH)]
        writers = []
        for id in ids:
            _, writer = await asyncio.open_connection(*self._address)
            writer.write(write_head(id, len(IMAGE)) + IMAGE)
            writers.append(writer)
        await asyncio.to_thread(wait_for, lambda: self._count_queued() >= EACH, "a full queue")
        aborted = read_counts(self._service)["aborted"]
        for id, writer in zip(ids, writers, strict=True):
            writer.close()
            await writer.wait_closed()
            self._ledger.end(id, ABORT)
        await asyncio.to_thread(
            wait_for, lambda: read_counts(self._service)["aborted"] == aborted + EACH, "aborts"
        )
        os.kill(worker, signal.SIGUSR2)

    def _count_queued(self) -> int:
        return sum(one["unanswered"] for one in self._service.get_json("/v1/status")["workers"])

    async def leave_in_answer(self, query: str) -> None:
        """Read the first bytes of the answer and go."""
        id = self._ledger.begin()
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, self._address)
        await loop.sock_sendall(sock, write_head(id, len(IMAGE), query) + IMAGE)
        begun = await loop.sock_recv(sock, 12)
        sock.close()
        assert begun == b"HTTP/1.1 200"
        self._ledger.end(id, ABORT)


async def leave_a_thousand_times(service: Service, ledger: Ledger) -> None:
    leavers, is_over = Leavers(service, ledger), False
    staying = [
        asyncio.create_task(keep_asking(Caller(service, ledger), lambda: not is_over, 0.02)) for _ in range(2)
    ]
    head_bytes = len(write_head("fault-0", len(IMAGE)))
    for _ in range(EACH):
        await leavers.leave_in_request(head_bytes // 2)
    for _ in range(EACH):
        await leavers.leave_in_request(-len(IMAGE) // 2)
    await leavers.leave_queued()
    for number in range(EACH):
        await leavers.leave_in_answer("?map=true" if number < MAPS else "")
    is_over = True
    await asyncio.gather(*staying)


def test_callers_who_leave_cost_nobody_else_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    with run_service(max_wait_ms=50_000) as service:
        ledger = Ledger.open(service)
        asyncio.run(leave_a_thousand_times(service, ledger))
        counts = ledger.close()
        stayed = counts["200"]
        assert counts == {"200": stayed, ABORT: 4 * EACH}
        # A caller who left in the headers never asked; one who left in the answer had been answered.
        counts["aborted"], counts["200"] = 2 * EACH, stayed + EACH
        del counts[ABORT]
        expect_counts(service, counts)
        computed = sum_metric(service, "resnet_batch_views_sum")
        assert computed - stayed - EACH < EACH / 2  # what a lane took before the cancels behind it were read
        assert service.get_json("/v1/status")["inflight_bytes"] == 0
