"""Callers who keep a ledger: each request has an id and ends exactly once, every 200 is the golden answer."""

import asyncio
import json
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.serving import PHOTOGRAPHS, Service

IMAGES = [(PHOTOGRAPHS / "cat.jpg").read_bytes()] + [
    path.read_bytes() for path in sorted((PHOTOGRAPHS / "photos").glob("*.jpg"))[:3]
]
PATH = "/v1/classify"
PATIENCE_S = 60.0
ABORT = "client abort"
# What a request may end with: nothing else ever, such as a reset connection or a 500.
ENDINGS = re.compile(f"200|4[0-9][0-9]|503|504|{ABORT}")

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(slots=True)
class Ledger:
    """How each request ended, by its id; `golden`: the predictions of IMAGES, asked while all was well."""

    golden: list[str]
    ends: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @staticmethod
    def open(service: Service) -> "Ledger":
        """Ask for the golden answers; these requests are in the ledger already."""
        ledger = Ledger([str(service.post_image(image)["predictions"]) for image in IMAGES])
        for _ in IMAGES:
            ledger.end(ledger.begin(), "200")
        return ledger

    def begin(self) -> str:
        """A new request; returns its id."""
        id = f"fault-{len(self.ends)}"
        self.ends[id] = ""
        return id

    def end(self, id: str, how: str) -> None:
        """It ended: a status, ABORT, or what went wrong."""
        assert not self.ends[id], f"{id} ended twice"
        self.ends[id] = how

    def check(self, id: str, image: int, body: bytes) -> None:
        """A 200 for IMAGES[image] must be the golden answer, and this request's."""
        told = json.loads(body)
        if told["request_id"] != id or str(told["predictions"]) != self.golden[image]:
            self.wrong.append(f"{id}: {body[:300]!r}")

    def count(self) -> Counter[str]:
        """Requests by how they ended."""
        return Counter(self.ends.values())

    def close(self) -> Counter[str]:
        """Everything ended as it may, and no answer was wrong; returns the counts."""
        odd = {id: how for id, how in self.ends.items() if not ENDINGS.fullmatch(how)}
        assert not odd, f"{len(odd)} of {len(self.ends)} ended otherwise: {list(odd.items())[:5]}"
        assert not self.wrong, f"{len(self.wrong)} wrong answers: {self.wrong[:3]}"
        return self.count()


class Caller:
    """One keep-alive connection, opened at need."""

    def __init__(self, service: Service, ledger: Ledger, timeout_s: float = PATIENCE_S) -> None:
        """`timeout_s`: the deadline of each request."""
        self._address = split_address(service)
        self._ledger = ledger
        self._timeout_s = timeout_s
        self._connection: Connection | None = None

    async def ask(self, image: int = 0, query: str = "") -> str:
        """One request for IMAGES[image] and its answer, in the ledger; returns how it ended."""
        id = self._ledger.begin()
        try:
            how = await self._exchange(id, image, query)
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            self.close()
            how = f"{type(error).__name__}: {error}"
        self._ledger.end(id, how)
        return how

    async def _exchange(self, id: str, image: int, query: str) -> str:
        if self._connection is None:
            self._connection = await asyncio.open_connection(*self._address)
        reader, writer = self._connection
        writer.write(write_head(id, len(IMAGES[image]), query, self._timeout_s) + IMAGES[image])
        status, head, body = await read_answer(reader)
        if b"\r\nconnection: close" in head:
            self.close()
        if status == 200:
            self._ledger.check(id, image, body)
        return str(status)

    def close(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection[1].close()
            self._connection = None


def split_address(service: Service) -> tuple[str, int]:
    """Host and port of its HTTP listener."""
    host, _, port = service.http.removeprefix("http://").rpartition(":")
    return host, int(port)


def write_head(id: str, size_bytes: int, query: str = "", timeout_s: float = PATIENCE_S) -> bytes:
    """A request up to its body."""
    return (
        f"POST {PATH}{query} HTTP/1.1\r\nHost: test\r\nX-Request-Id: {id}\r\n"
        f"Request-Timeout: {timeout_s}\r\nContent-Length: {size_bytes}\r\n\r\n"
    ).encode()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """Status, head in lower case and body of the next answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
    return int(head[9:12]), head, await reader.readexactly(int(length))


async def keep_asking(caller: Caller, goes_on: Callable[[], bool], pause_s: float = 0.0) -> None:
    """Request after request while `goes_on`."""
    number = 0
    while goes_on():
        await caller.ask(number % len(IMAGES))
        number += 1
        await asyncio.sleep(pause_s)
    caller.close()


def read_counts(service: Service, route: str = PATH) -> Counter[str]:
    """Requests by code, as /metrics has them."""
    found: Counter[str] = Counter()
    for labels, value in re.findall(r"^resnet_requests_total\{(.*)\} (\S+)$", read_metrics(service), re.M):
        if f'route="{route}"' in labels and 'protocol="http"' in labels:
            found[labels.partition('code="')[2].partition('"')[0]] += int(float(value))
    return found


def sum_metric(service: Service, name: str) -> float:
    """All samples of that name."""
    samples = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", read_metrics(service), re.M)
    return sum(float(value) for value in samples)


def read_metrics(service: Service) -> str:
    """The text of /metrics."""
    with urllib.request.urlopen(service.http + "/metrics", timeout=PATIENCE_S) as answer:
        text: str = answer.read().decode()
    return text


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Until `condition` holds; fails the test after PATIENCE_S."""
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends, f"waited in vain for {what}"
        time.sleep(0.02)


def expect_counts(service: Service, expected: Counter[str], route: str = PATH) -> None:
    """/metrics agree to the unit, once the server has noticed every caller who went away."""
    ends = time.monotonic() + PATIENCE_S
    while read_counts(service, route) != expected and time.monotonic() < ends:
        time.sleep(0.05)
    assert read_counts(service, route) == expected


def find_children(service: Service, role: str) -> list[int]:
    """Process ids of that role that are up."""
    children = service.get_json("/v1/status")["children"]
    return [child["pid"] for child in children if child["role"] == role and child["state"] == "up"]


def wait_for_children(service: Service, role: str) -> list[int]:
    """The same, at least one: the service is ready a moment before it tells of its children."""
    wait_for(lambda: bool(find_children(service, role)), f"a {role}")
    return find_children(service, role)


def read_log(service: Service, message: str) -> list[dict[str, object]]:
    """Log lines with that message."""
    return [line for line in service.log if line["message"] == message]
