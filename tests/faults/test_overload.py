"""Ten times as many callers as can be served: each is answered or refused at once, and counted."""

import asyncio
import time

import pytest

from tests.faults import FAULT_SECONDS
from tests.faults.callers import IMAGES, Caller, Ledger, expect_counts, keep_asking, sum_metric
from tests.serving import Service, run_service

SECONDS = FAULT_SECONDS or 3.0
CALLERS = 100
MAX_WAIT_MS = 10  # about ten images of the small model: a tenth of the callers
PAUSE_S = 0.01


async def ask_too_much(service: Service, ledger: Ledger, seconds: float) -> None:
    ends = time.monotonic() + seconds
    callers = [Caller(service, ledger) for _ in range(CALLERS)]
    await asyncio.gather(*(keep_asking(one, lambda: time.monotonic() < ends, PAUSE_S) for one in callers))


@pytest.mark.timeout(SECONDS + 120)
def test_overload_is_refused_and_the_rest_is_answered() -> None:
    with run_service(max_wait_ms=MAX_WAIT_MS) as service:
        ledger = Ledger.open(service)
        asyncio.run(ask_too_much(service, ledger, SECONDS))
        assert service.get_json("/v1/status")["ready"]
        assert service.post_image(IMAGES[0])["predictions"]  # back to normal
        ledger.end(ledger.begin(), "200")
        counts = ledger.close()
        print(f"{dict(counts)} in {SECONDS:g} s")
        assert set(counts) == {"200", "503"}
        assert counts["200"] > len(IMAGES) + 1
        assert sum_metric(service, "resnet_rejected_total") == counts["503"]
        expect_counts(service, counts)
