"""Callers that ask again as soon as they are answered, on HTTP and gRPC, and count how each request ended."""

import collections
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from service.client import Client
from service.errors import ServiceError


@dataclass(slots=True)
class Callers:
    """Counted by kind of ending ("answered" or an error's name), by kind and protocol, and by version."""

    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    by_protocol: dict[str, collections.Counter[str]] = field(default_factory=dict)
    versions: collections.Counter[int] = field(default_factory=collections.Counter)
    latencies_s: list[float] = field(default_factory=list)
    is_over: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def failed(self) -> int:
        """How many requests were not answered."""
        return sum(self.outcomes.values()) - self.outcomes["answered"]

    @contextmanager
    def asking(self, urls: Sequence[str], image: Path, callers: int) -> Iterator[None]:
        """`callers` threads ask `urls` in turn, without retries, for as long as the context lasts."""
        threads = [
            threading.Thread(target=self._ask, args=(urls[number % len(urls)], image.read_bytes()))
            for number in range(callers)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.is_over = True
            for thread in threads:
                thread.join()

    def describe(self) -> str:
        """Requests, failures and percentiles, in one or two lines."""
        ranked = sorted(self.latencies_s) or [0.0]
        shares = (("p50", 0.5), ("p99", 0.99), ("slowest", 1.0))
        times = ", ".join(
            f"{name} {ranked[min(len(ranked) - 1, int(share * len(ranked)))] * 1000:.0f} ms"
            for name, share in shares
        )
        kinds = "; ".join(f"{name}: {dict(counted)}" for name, counted in sorted(self.by_protocol.items()))
        return f"{sum(self.outcomes.values())} requests, {self.failed} failed ({kinds})\n{times}"

    def _ask(self, url: str, image: bytes) -> None:
        protocol = url.partition("://")[0]
        with Client(url, attempts=1) as client:
            while not self.is_over:
                began = time.perf_counter()
                try:
                    version, outcome = client.classify(image).model.version, "answered"
                except ServiceError as error:
                    version, outcome = 0, f"{type(error).__name__}: {error.detail}"[:120]
                with self._lock:
                    self.outcomes[outcome] += 1
                    self.by_protocol.setdefault(protocol, collections.Counter())[outcome] += 1
                    self.versions[version] += 1
                    self.latencies_s.append(time.perf_counter() - began)
