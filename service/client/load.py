"""Load for measuring a server: closed loop (so many callers, each waiting) and open loop (so many a second).

Plain HTTP/1.1 on asyncio streams, so that the load costs the machine as little as may be. In the open loop a
latency counts from the moment the request was due, not from when a connection was free: a server that
stalls is charged for everybody it kept waiting.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

MAX_HEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Target:
    """Where the load goes: `path` with its query; `bodies` are encoded images, sent in turn."""

    host: str
    port: int
    path: str
    bodies: Sequence[bytes]
    headers: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def from_url(url: str, path: str, bodies: Sequence[bytes], api_key: str | None = None) -> "Target":
        """From http://host:port; raises ValueError for anything else (the load speaks no TLS)."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url!r} is no plain HTTP server: write http://host:port")
        headers = (("Authorization", f"Bearer {api_key}"),) if api_key else ()
        return Target(parts.hostname, parts.port or 80, path, bodies, headers)

    def write_request(self, number: int) -> bytes:
        """The bytes of request `number`."""
        body = self.bodies[number % len(self.bodies)]
        extra = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
            f"Content-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        )
        return head.encode() + body


@dataclass(slots=True)
class Report:
    """What a run saw: `latencies_s` of answers with status 200, `codes` of every request, 0 for no answer."""

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    codes: Counter[int] = field(default_factory=Counter)

    @property
    def rate_per_s(self) -> float:
        """Answers with status 200 per second."""
        return self.codes[200] / self.seconds if self.seconds else 0.0

    @property
    def errors(self) -> int:
        """Requests that did not end with status 200."""
        return self.codes.total() - self.codes[200]

    def percentile_ms(self, share: float) -> float:
        """The latency in ms under which `share` (0..1) of the good answers stayed; NaN without any."""
        if not self.latencies_s:
            return float("nan")
        ranked = sorted(self.latencies_s)
        return 1000 * ranked[min(len(ranked) - 1, int(share * len(ranked)))]


class _Connection:
    """One keep-alive connection, opened at need and after every failure."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, number: int) -> int:
        """Send request `number` and read its answer; returns the status, 0 when the connection failed."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(
                    self._target.host, self._target.port, limit=MAX_HEAD_BYTES
                )
            reader, writer = self._streams
            writer.write(self._target.write_request(number))
            return await self._read(reader)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            self.close()
            return 0

    async def _read(self, reader: asyncio.StreamReader) -> int:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
        if b"connection: close" in head:
            self.close()
        return int(head[9:12])

    def close(self) -> None:
        """Drop the connection; the next `ask` opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def run_closed(target: Target, connections: int, seconds: float) -> Report:
    """`connections` callers, each sending its next request as soon as it has the last answer."""
    report, numbers = Report(), iter(range(1 << 62))
    ends = time.monotonic() + seconds

    async def call() -> None:
        connection = _Connection(target)
        while (began := time.monotonic()) < ends:
            _note(report, await connection.ask(next(numbers)), began)
        connection.close()

    began = time.monotonic()
    await asyncio.gather(*(call() for _ in range(connections)))
    report.seconds = time.monotonic() - began
    return report


async def run_open(target: Target, rate_per_s: float, seconds: float, *, seed: int = 0) -> Report:
    """Requests due at random moments (a Poisson process), whether or not earlier ones were answered."""
    report, idle, tasks = Report(), list[_Connection](), set[asyncio.Task[None]]()
    chance = random.Random(seed)

    async def call(number: int, due: float) -> None:
        connection = idle.pop() if idle else _Connection(target)
        _note(report, await connection.ask(number), due)
        idle.append(connection)

    began = due = time.monotonic()
    number = 0
    while (due := due + chance.expovariate(rate_per_s)) < began + seconds:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        task = asyncio.create_task(call(number, due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1
    await asyncio.gather(*tasks)
    report.seconds = time.monotonic() - began
    for connection in idle:
        connection.close()
    return report


def _note(report: Report, code: int, began: float) -> None:
    report.codes[code] += 1
    if code == 200:
        report.latencies_s.append(time.monotonic() - began)
