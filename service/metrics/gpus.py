"""What NVIDIA's management library says of the GPUs, read at each look; nothing where there are none."""

import importlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

MILLI = 1e-3
PERCENT = 1e-2

# Name, meaning, and how to read it with the library from one GPU's handle.
FAMILIES: tuple[tuple[str, str, Callable[[Any, Any], float]], ...] = (
    (
        "resnet_gpu_busy_ratio",
        "Share of the last second or so in which the GPU ran a kernel.",
        lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu * PERCENT,
    ),
    (
        "resnet_gpu_memory_used_bytes",
        "Memory of the GPU that is taken, by whomever.",
        lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
    ),
    (
        "resnet_gpu_memory_bytes",
        "Memory that the GPU has.",
        lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).total,
    ),
    (
        "resnet_gpu_power_watts",
        "What the GPU draws.",
        lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) * MILLI,
    ),
    (
        "resnet_gpu_temperature_celsius",
        "How hot the GPU is; one that is too hot slows down.",
        lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
    ),
)


@lru_cache(maxsize=1)
def open_nvml() -> Any | None:
    """The library (pynvml, of the package nvidia-ml-py), initialised; None without it or without a driver."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml


class GpuCollector(Collector):
    """Reads every GPU at each collection; what a GPU does not tell (a MIG slice its load) is left out."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One gauge for each of FAMILIES, by the GPU's number as in cuda:N."""
        for name, meaning, read in FAMILIES:
            family = GaugeMetricFamily(name, meaning, labels=["gpu"])
            for number in range(self._nvml.nvmlDeviceGetCount()):
                try:
                    gpu = self._nvml.nvmlDeviceGetHandleByIndex(number)
                    family.add_metric([str(number)], read(self._nvml, gpu))
                except self._nvml.NVMLError:
                    continue
            yield family
