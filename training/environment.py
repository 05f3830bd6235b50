"""Where a run happened: commit, hardware, versions. Written into the journal and from there into the card."""

import platform
import subprocess
from pathlib import Path

import torch

from training.distributed import Ranks


def find_commit() -> str | None:
    """The commit of the source tree, `-dirty` if it differs from it; None outside a checkout."""
    root = Path(__file__).parent.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603

    try:
        dirty = "-dirty" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "HEAD") + dirty
    except (OSError, subprocess.CalledProcessError):
        return None


def describe_hardware(device: torch.device) -> str:
    """The device's name, and for a CPU the number of threads computing on it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_cpu_name()}, {threads} thread{'s' if threads > 1 else ''}"


def describe_environment(ranks: Ranks) -> dict[str, str | None]:
    """What to state beside a result."""
    hardware = describe_hardware(ranks.device)
    return {
        "commit": find_commit(),
        "hardware": hardware if ranks.world == 1 else f"{ranks.world} x {hardware}",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    """`model name` of /proc/cpuinfo where there is one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    flags = named.get("flags", "").split()
    widest = next((flag for flag in ("avx512_bf16", "avx512f", "avx2") if flag in flags), platform.machine())
    return f"{named.get('model name', platform.machine())} ({widest})"
