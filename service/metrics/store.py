"""Metric values in files of shared memory, one set per child slot, so that one page tells of every process.

A counter lives in its slot's file, not in a process: a killed child's successor goes on where it stopped.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

from prometheus_client import CollectorRegistry, Metric, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from service.metrics.gpus import GpuCollector, open_nvml

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def open_store(directory: Path, slot: str) -> None:
    """Keep this process's metrics in `directory` under `slot`, such as frontend-0: unique among live ones.

    Must come before any metric is made. The names of the files are split at underscores, so slots have none.
    """
    if "_" in slot:
        raise ValueError(f"slot {slot!r} has an underscore")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)  # the library looks nowhere else
    make_class = cast(Callable[..., Any], values.MultiProcessValue)  # the library leaves it untyped
    values.ValueClass = make_class(process_identifier=lambda: slot)


def read_store(directory: Path) -> CollectorRegistry:
    """Every process's metrics, summed whenever the registry is collected."""
    registry = CollectorRegistry()
    registry.register(_Store(directory))
    return registry


class _Store(Collector):
    """The library's own collector falls over a file that a starting process has made and not yet filled."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        files = [str(path) for path in self._directory.glob("*.db") if path.stat().st_size]
        merge = cast(Callable[[list[str]], Iterable[Metric]], MultiProcessCollector.merge)
        return merge(files)


def render_metrics(directory: Path) -> bytes:
    """Every process's metrics summed and what the GPUs say, in Prometheus' text format."""
    registry = read_store(directory)
    nvml = open_nvml()
    if nvml is not None:
        registry.register(GpuCollector(nvml))
    return generate_latest(registry)
