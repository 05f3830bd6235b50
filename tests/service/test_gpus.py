"""What is told of GPUs where there are some, where one tells less, and where there is none."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from service.metrics.gpus import FAMILIES, GpuCollector, open_nvml
from service.metrics.store import render_metrics


class TwoGpus:
    """NVML's functions for a whole GPU and for one whose load is not told, as a MIG slice's."""

    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        """NVML's own."""

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802  # NVML's names
        return 2

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:  # noqa: N802
        return number

    def nvmlDeviceGetUtilizationRates(self, gpu: int) -> SimpleNamespace:  # noqa: N802
        if gpu == 1:
            raise self.NVMLError("not supported")
        return SimpleNamespace(gpu=75, memory=10)

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(used=2 << 30, total=80 << 30)

    def nvmlDeviceGetPowerUsage(self, gpu: int) -> int:  # noqa: N802
        return 250_500

    def nvmlDeviceGetTemperature(self, gpu: int, sensor: int) -> int:  # noqa: N802
        return 61


def test_each_gpu_tells_in_base_units_and_leaves_out_what_it_does_not_know() -> None:
    registry = CollectorRegistry()
    registry.register(GpuCollector(TwoGpus()))
    text = generate_latest(registry).decode()
    for sample in (
        'resnet_gpu_busy_ratio{gpu="0"} 0.75',
        'resnet_gpu_memory_used_bytes{gpu="1"} 2.147483648e+09',
        'resnet_gpu_memory_bytes{gpu="1"} 8.589934592e+10',
        'resnet_gpu_power_watts{gpu="0"} 250.5',
        'resnet_gpu_temperature_celsius{gpu="1"} 61.0',
    ):
        assert sample in text
    assert 'resnet_gpu_busy_ratio{gpu="1"}' not in text


def test_without_the_library_nothing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    open_nvml.cache_clear()
    try:
        assert "resnet_gpu" not in render_metrics(tmp_path).decode()
    finally:
        open_nvml.cache_clear()


def test_names_carry_their_base_units() -> None:
    assert all(name.endswith(("_ratio", "_bytes", "_watts", "_celsius")) for name, _, _ in FAMILIES)
