"""Which devices the workers run on, and how many threads each worker may use."""

import os
import re
import shutil
import subprocess

from service.settings import BadSettings, Settings

_DEVICE = re.compile(r"cpu|cuda:\d+|MIG-[0-9a-f-]+")


def list_devices(settings: Settings) -> list[tuple[str, int]]:
    """(device, threads) for each device of SERVE_DEVICES; raises BadSettings for a name that is none.

    The CPU's cores are shared out among its workers, so that nothing is oversubscribed.
    """
    names = [name.strip() for name in settings.devices.split(",") if name.strip()]
    if names == ["auto"]:
        names = _find_gpus() or ["cpu"]
    for name in names:
        if not _DEVICE.fullmatch(name):
            raise BadSettings(
                f"SERVE_DEVICES={settings.devices!r}: {name!r} is not a device; write cpu, cuda:0 or auto"
            )
    cores = len(os.sched_getaffinity(0))
    threads = settings.worker_threads or max(1, cores // settings.workers_per_device)
    return [(name, threads) for name in names]


def _find_gpus() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    listing = subprocess.run(  # names come from PATH as an operator's shell would find it
        ["nvidia-smi", "--list-gpus"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    return [f"cuda:{number}" for number in re.findall(r"^GPU (\d+):", listing.stdout, re.MULTILINE)]
