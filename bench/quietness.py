"""How much of the machine other programs took during a measurement."""

import os
import time
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Quietness:
    """Counts from its making: what every core was busy with, less what `used_s` says is ours."""

    def __init__(self) -> None:
        self._began, self._busy_s = time.perf_counter(), _read_busy_s()

    def others(self, used_s: float) -> float:
        """Cores that others kept busy on average, the hypervisor included; `used_s`: our own seconds."""
        seconds = time.perf_counter() - self._began
        return round(max(0.0, (_read_busy_s() - self._busy_s - used_s) / seconds), 3)


def _read_busy_s() -> float:
    """Processor seconds since boot that were neither idle nor waiting for a disk, proc(5)."""
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_S
