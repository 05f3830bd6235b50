"""A frontend without file descriptors left answers who is connected, and others once it has some again."""

import asyncio
import os
import resource

from tests.faults.callers import (
    IMAGES,
    PATIENCE_S,
    Caller,
    Connection,
    Ledger,
    expect_counts,
    find_children,
    split_address,
    wait_for,
    wait_for_children,
)
from tests.serving import Service, run_service

ROOM = 20
COMING = 100
ROUNDS = 20


def count_descriptors(pid: int) -> int:
    """How many descriptors that process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


async def exhaust(service: Service, ledger: Ledger, frontend: int, limit: int) -> None:
    connected = [Caller(service, ledger) for _ in IMAGES]
    for image, caller in enumerate(connected):
        assert await caller.ask(image) == "200"
    resource.prlimit(frontend, resource.RLIMIT_NOFILE, (limit, limit))
    coming: list[Connection] = [
        await asyncio.open_connection(*split_address(service)) for _ in range(COMING)
    ]  # the kernel connects them all; the frontend can accept a few
    await asyncio.to_thread(wait_for, lambda: count_descriptors(frontend) >= limit - 1, "exhaustion")
    for _ in range(ROUNDS):
        await asyncio.gather(*(caller.ask(image) for image, caller in enumerate(connected)))
    assert count_descriptors(frontend) >= limit - 1
    for _, writer in coming:
        writer.close()
    await asyncio.to_thread(wait_for, lambda: count_descriptors(frontend) < limit - ROOM // 2, "room")
    late = Caller(service, ledger)
    async with asyncio.timeout(PATIENCE_S):
        assert await late.ask() == "200"
    for caller in [*connected, late]:
        caller.close()


def test_without_descriptors_the_connected_are_answered_and_the_rest_later() -> None:
    with run_service() as service:
        ledger = Ledger.open(service)
        (frontend,) = wait_for_children(service, "frontend")
        asyncio.run(exhaust(service, ledger, frontend, count_descriptors(frontend) + ROOM))
        assert find_children(service, "frontend") == [frontend]
        counts = ledger.close()
        assert counts == {"200": len(IMAGES) * (ROUNDS + 2) + 1}
        expect_counts(service, counts)
