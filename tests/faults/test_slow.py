"""A thousand slow or silent connections are cut at their deadlines, and good callers notice nothing."""

import asyncio
import time
from collections import Counter

import pytest

from tests.faults import FAULT_SECONDS
from tests.faults.callers import (
    IMAGES,
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
IS_LONG = FAULT_SECONDS >= 60
# The long form has the defaults, 10 s and 30 s.
HEADER_S, BODY_S = (10.0, 30.0) if IS_LONG else (1.5, 2.5)
DRIP_TIMEOUT_S = 40.0 if IS_LONG else 4.0
GOOD_CALLERS = 4


class SlowCallers:
    """Each method is one connection, from its first byte to its end by the server."""

    def __init__(self, service: Service, ledger: Ledger) -> None:
        self._address, self._ledger = split_address(service), ledger
        self.ends: Counter[str] = Counter()

    async def stay_silent(self, first_bytes: bytes, kind: str) -> None:
        """Send the beginning of the headers, or nothing, and wait."""
        reader, writer = await asyncio.open_connection(*self._address)
        writer.write(first_bytes)
        answer = await reader.read()
        self.ends[f"{kind}: {answer[9:12].decode()}"] += 1
        writer.close()

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


async def be_slow(service: Service, ledger: Ledger) -> Counter[str]:
    slow, is_over = SlowCallers(service, ledger), False
    half = write_head("never", 1)[:40]
    good = [
        asyncio.create_task(keep_asking(Caller(service, ledger), lambda: not is_over, 0.02))
        for _ in range(GOOD_CALLERS)
    ]
    await asyncio.gather(
        *(slow.stay_silent(b"", "silent") for _ in range(SILENT)),
        *(slow.stay_silent(half, "in headers") for _ in range(IN_HEADERS)),
        *(slow.stop_in_body() for _ in range(IN_BODY)),
        *(slow.drip() for _ in range(DRIPPING)),
    )
    is_over = True
    await asyncio.gather(*good)
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
        }
        counts = ledger.close()
        assert counts == {"408": IN_BODY + DRIPPING, "200": counts["200"]}
        assert counts["200"] > len(IMAGES) + GOOD_CALLERS
        expect_counts(service, counts)
        expect_counts(service, Counter({"408": IN_HEADERS}), "unknown")
