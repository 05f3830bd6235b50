"""How large the service's batches were, from its /metrics."""

import urllib.request
from dataclasses import dataclass

VIEWS, BATCHES = "resnet_batch_views_sum", "resnet_batch_views_count"


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """Since the service began."""

    views: float
    batches: float


def read_batches(port: int) -> BatchCounts:
    """Ask the service on `port`."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()

    def total(name: str) -> float:
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    return BatchCounts(total(VIEWS), total(BATCHES))
