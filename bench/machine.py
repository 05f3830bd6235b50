"""What a figure must be read with: the machine, versions, the commit, and what the machine gives just now."""

import importlib.metadata
import os
import platform
import re
import subprocess
import time
from pathlib import Path

import numpy as np

PACKAGES = (
    "onnxruntime",
    "numpy",
    "simplejpeg",
    "pillow",
    "uvicorn",
    "httptools",
    "uvloop",
    "msgspec",
    "grpcio",
)


def describe_machine() -> dict[str, object]:
    """Processor, cores, load, versions, commit and time."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, check=False
    )
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "processor": model[1] if model else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "commit": told.stdout.decode().strip(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def probe() -> float:
    """A fixed piece of arithmetic on one core, times a second."""
    matrix = np.ones((256, 256), np.float32)
    started = time.perf_counter()
    for _ in range(500):
        matrix = matrix @ matrix * np.float32(1 / 256)
    return 500 / (time.perf_counter() - started)
