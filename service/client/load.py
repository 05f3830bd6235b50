"""Load for measuring a server: closed loop (so many callers, each waiting) and open loop (so many a second).

Plain HTTP/1.1 on asyncio streams, so that the load costs the machine as little as may be; load_rpc.py has
gRPC's side. In the open loop a
latency counts from the moment the request was due, not from when a connection was free: a server that
stalls is charged for everybody it kept waiting.
"""

import asyncio
import random
import ssl
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from service.client.tls import ClientTls

MAX_HEAD_BYTES = 1 << 16
CLOSE_S = 1.0
NO_ANSWER = "no answer"
GOOD = ("200", "OK")  # HTTP's and gRPC's


class Caller(Protocol):
    """One of those who send; it keeps its connection."""

    async def ask(self, number: int) -> str:
        """Send request `number` and wait for its answer; returns its code, or NO_ANSWER."""
        ...

    async def close(self) -> None:
        """Drop the connection."""
        ...


class Connectable(Protocol):
    """A server that load can be sent to."""

    def connect(self) -> Caller:
        """One more caller."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """Where the load goes: `path` with its query; `bodies` are encoded images, sent in turn."""

    host: str
    port: int
    path: str
    bodies: Sequence[bytes]
    headers: tuple[tuple[str, str], ...] = ()
    tls: ssl.SSLContext | None = None

    @staticmethod
    def from_url(
        url: str,
        path: str,
        bodies: Sequence[bytes],
        api_key: str | None = None,
        tls: ClientTls | None = None,
    ) -> "Target":
        """From http(s)://host:port; raises ValueError for anything else."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no HTTP server: write http://host:port")
        context = (tls or ClientTls()).make_context() if parts.scheme == "https" else None
        headers = (("Authorization", f"Bearer {api_key}"),) if api_key else ()
        port = parts.port or (443 if context else 80)
        return Target(parts.hostname, port, path, bodies, headers, context)

    def connect(self) -> "_Connection":
        """A caller; its connection is opened at need."""
        return _Connection(self)

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
    """What a run saw: `latencies_s` of good answers, `codes` of every request, NO_ANSWER among them."""

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)

    @property
    def rate_per_s(self) -> float:
        """Good answers per second."""
        return len(self.latencies_s) / self.seconds if self.seconds else 0.0

    @property
    def errors(self) -> int:
        """Requests that did not end with a good answer."""
        return self.codes.total() - len(self.latencies_s)

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

    async def ask(self, number: int) -> str:
        """Send request `number` and read its answer; returns the status."""
        if self._streams is not None and self._streams[0].at_eof():  # closed while nobody asked, as it may be
            await self.close()
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(
                    self._target.host,
                    self._target.port,
                    limit=MAX_HEAD_BYTES,
                    ssl=self._target.tls,
                )
            reader, writer = self._streams
            writer.write(self._target.write_request(number))
            return await self._read(reader)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            await self.close()
            return NO_ANSWER

    async def _read(self, reader: asyncio.StreamReader) -> str:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
        if b"connection: close" in head:
            await self.close()
        return head[9:12].decode()

    async def close(self) -> None:
        """Drop the connection; the next `ask` opens another."""
        if self._streams is None:
            return
        _, writer = self._streams
        self._streams = None
        writer.close()
        try:
            async with asyncio.timeout(CLOSE_S):
                await writer.wait_closed()
        except (OSError, TimeoutError):  # TLS says goodbye, and wants to hear it
            writer.transport.abort()


async def run_closed(target: Connectable, connections: int, seconds: float) -> Report:
    """`connections` callers, each sending its next request as soon as it has the last answer."""
    report, numbers = Report(), iter(range(1 << 62))
    ends = time.monotonic() + seconds

    async def call() -> None:
        connection = target.connect()
        while (began := time.monotonic()) < ends:
            _note(report, await connection.ask(next(numbers)), began)
        await connection.close()

    began = time.monotonic()
    await asyncio.gather(*(call() for _ in range(connections)))
    report.seconds = time.monotonic() - began
    return report


async def run_open(target: Connectable, rate_per_s: float, seconds: float, *, seed: int = 0) -> Report:
    """Requests due at random moments (a Poisson process), whether or not earlier ones were answered."""
    report, idle, tasks = Report(), list[Caller](), set[asyncio.Task[None]]()
    chance = random.Random(seed)

    async def call(number: int, due: float) -> None:
        connection = idle.pop() if idle else target.connect()
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
        await connection.close()
    return report


def _note(report: Report, code: str, began: float) -> None:
    report.codes[code] += 1
    if code in GOOD:
        report.latencies_s.append(time.monotonic() - began)
