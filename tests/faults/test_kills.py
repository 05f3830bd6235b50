"""Workers killed under load: callers see nothing, every answer is the golden one, nothing is counted twice.

Seconds long in every test run; `make test-faults` runs it for FAULT_SECONDS=300.
"""

import asyncio
import os
import signal
import time

import pytest

from tests.faults import FAULT_SECONDS
from tests.faults.callers import (
    IMAGES,
    Caller,
    Ledger,
    expect_counts,
    find_children,
    keep_asking,
    read_log,
    wait_for,
    wait_for_children,
)
from tests.serving import Service, run_service

SECONDS = max(FAULT_SECONDS, 6.0)
KILL_EVERY_S = 2.0
CALLERS = 4
PAUSE_S = 0.02  # about half of what the small model can do on two cores
DEADLINE_S = 10.0 if FAULT_SECONDS else 60.0  # the promise is about 10 s; a test beside others is patient


async def kill_workers(service: Service, ends: float) -> int:
    """kill -9 every KILL_EVERY_S until `ends`; returns how many died of it."""
    kills = 0
    while time.monotonic() < ends - KILL_EVERY_S:
        await asyncio.sleep(KILL_EVERY_S)
        for pid in await asyncio.to_thread(find_children, service, "worker"):
            os.kill(pid, signal.SIGKILL)
            kills += 1
    return kills


async def load_and_kill(service: Service, ledger: Ledger, seconds: float) -> int:
    ends = time.monotonic() + seconds
    killing = asyncio.create_task(kill_workers(service, ends))
    callers = [Caller(service, ledger, DEADLINE_S) for _ in range(CALLERS)]
    await asyncio.gather(*(keep_asking(one, lambda: time.monotonic() < ends, PAUSE_S) for one in callers))
    return await killing


@pytest.mark.timeout(SECONDS + 120)
def test_kills_every_two_seconds_are_seen_by_nobody() -> None:
    with run_service(max_wait_ms=DEADLINE_S * 900) as service:
        ledger = Ledger.open(service)
        kills = asyncio.run(load_and_kill(service, ledger, SECONDS))
        deaths = read_log(service, "worker died")
        counts = ledger.close()
        print(f"{counts.total()} requests, {kills} kills")
        assert kills > 0
        assert len(deaths) == kills
        assert counts == {"200": counts.total()}
        expect_counts(service, counts)


def test_process_in_waiting_becomes_the_next_worker() -> None:
    with run_service() as service:
        spares: set[int] = set()

        def has_spare() -> bool:
            known = {child["pid"] for child in service.get_json("/v1/status")["children"]}
            spares.update(set(service.list_pids()) - known)
            return bool(spares)

        wait_for(has_spare, "a process in waiting")
        (killed,) = wait_for_children(service, "worker")
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: find_children(service, "worker") not in ([], [killed]), "a successor")
        assert set(wait_for_children(service, "worker")) == spares


async def ask_together(service: Service, ledger: Ledger) -> None:
    callers = [Caller(service, ledger) for _ in IMAGES]
    await asyncio.gather(*(caller.ask(image) for image, caller in enumerate(callers)))
    for caller in callers:
        caller.close()


def test_stopped_worker_is_replaced_and_its_images_answered() -> None:
    with run_service(max_wait_ms=50_000) as service:
        ledger = Ledger.open(service)
        (pid,) = wait_for_children(service, "worker")
        os.kill(pid, signal.SIGSTOP)

        asyncio.run(ask_together(service, ledger))
        assert wait_for_children(service, "worker") != [pid]
        assert read_log(service, "no heartbeat; killed")
        counts = ledger.close()
        assert counts == {"200": 2 * len(IMAGES)}
        expect_counts(service, counts)
