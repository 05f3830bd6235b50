"""SIGTERM under load: what was sent is answered, what comes later finds a closed port, nothing between."""

import asyncio
import signal

from tests.faults.callers import IMAGES, Caller, Ledger, wait_for
from tests.serving import Service, run_service

CALLERS = 8
REFUSED = "ConnectionRefusedError"


async def ask_until_refused(service: Service, ledger: Ledger) -> None:
    async def ask(number: int) -> None:
        caller = Caller(service, ledger)
        how = ""
        while not how.startswith(REFUSED):
            how = await caller.ask(number % len(IMAGES))
        caller.close()

    asking = [asyncio.create_task(ask(number)) for number in range(CALLERS)]
    seen = len(ledger.ends)
    await asyncio.to_thread(wait_for, lambda: ledger.count()["200"] > seen + 10 * CALLERS, "load")
    service.process.send_signal(signal.SIGTERM)
    await asyncio.gather(*asking)


def test_sigterm_under_load_breaks_no_connection() -> None:
    with run_service() as service:
        ledger = Ledger.open(service)
        asyncio.run(ask_until_refused(service, ledger))
        refused = [id for id, how in ledger.ends.items() if how.startswith(REFUSED)]
        assert len(refused) == CALLERS  # the port was closed before they asked: these were never requests
        for id in refused:
            del ledger.ends[id]
        counts = ledger.close()
        assert set(counts) <= {"200", "503"}
        assert counts["200"] > 10 * CALLERS
        assert service.process.wait(60) == 0
        assert any(line["message"] == "draining" for line in service.log)
