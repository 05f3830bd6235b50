"""A device without memory for a batch: it is halved, not tried at that size again, and nobody notices."""

import asyncio
import os
import signal

import pytest

from tests.faults.callers import (
    IMAGES,
    Caller,
    Ledger,
    expect_counts,
    find_children,
    read_log,
    wait_for_children,
)
from tests.faults.engine import PYTHONPATH
from tests.serving import Service, run_service

CALLERS = 24
EACH = 15


async def ask_much(service: Service, ledger: Ledger) -> None:
    async def ask(number: int) -> None:
        caller = Caller(service, ledger)
        for turn in range(EACH):
            await caller.ask((number + turn) % len(IMAGES))
        caller.close()

    await asyncio.gather(*(ask(number) for number in range(CALLERS)))


def test_batches_too_large_for_the_device_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    with run_service(max_wait_ms=50_000) as service:
        ledger = Ledger.open(service)
        workers = wait_for_children(service, "worker")
        asyncio.run(ask_much(service, ledger))
        assert not read_log(service, "out of memory: batch halved")
        os.kill(workers[0], signal.SIGUSR1)
        asyncio.run(ask_much(service, ledger))
        halved = read_log(service, "out of memory: batch halved")
        assert halved
        asyncio.run(ask_much(service, ledger))
        assert len(read_log(service, "out of memory: batch halved")) == len(halved)  # no such batch again
        assert find_children(service, "worker") == workers
        counts = ledger.close()
        assert counts == {"200": len(IMAGES) + 3 * CALLERS * EACH}
        expect_counts(service, counts)
