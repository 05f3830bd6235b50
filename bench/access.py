"""What asking for keys costs a frontend: `python -m bench.access`.

The processor time of the frontend for an answer (user and system, from /proc) while wrk drives it with 1 kB
images on 32 connections: without keys, with a key, with a key that has a rate, and with one whose rate more
frontends count. It hardly depends on what else the machine does; the rounds alternate all the same.
"""

import os
import re
import statistics
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from bench.frontend import start_frontend
from service.access.keys import make_key, write_keys

ROUNDS = 7
SECONDS = 2
SCRIPT = 'wrk.method = "POST"\nwrk.body = string.rep("x", 1000)\n'


def read_cpu_s(pid: int) -> float:
    """Processor seconds that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def drive(pid: int, port: int, script: Path, headers: Mapping[str, str]) -> float:
    """Microseconds of the frontend's processor time for an answer."""
    before = read_cpu_s(pid)
    command = ["wrk", "-t1", "-c32", f"-d{SECONDS}s", "-s", str(script)]
    command += [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    told = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/v1/classify"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"(\d+) requests in", told)
    assert found is not None, told
    assert "Non-2xx" not in told, told
    return 1e6 * (read_cpu_s(pid) - before) / int(found[1])


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name, open(os.devnull, "w") as log:
        folder = Path(name)
        script = folder / "post.lua"
        script.write_text(SCRIPT)
        plain, key = make_key(frozenset({"classify"}))
        limited, limited_key = make_key(frozenset({"classify"}))
        limited = replace(limited, rate_per_s=1e6, burst=1_000_000)
        write_keys(folder / "keys.json", {plain.id: plain, limited.id: limited})
        for part in ("open", "guarded", "shared"):
            (folder / part).mkdir()
        anyone = start_frontend(folder / "open", log.fileno())
        keys = str(folder / "keys.json")
        guarded = start_frontend(folder / "guarded", log.fileno(), api_keys=keys)
        shared = start_frontend(folder / "shared", log.fileno(), api_keys=keys, frontends="2")
        subjects = {
            "no keys": (anyone, {}),
            "a key": (guarded, {"X-API-Key": key}),
            "a key with a rate": (guarded, {"X-API-Key": limited_key}),
            "a rate shared": (shared, {"X-API-Key": limited_key}),
        }
        costs: dict[str, list[float]] = {subject: [] for subject in subjects}
        try:
            for _ in range(ROUNDS):
                for subject, ((child, _, port), headers) in subjects.items():
                    costs[subject].append(drive(child.pid, port, script, headers))
        finally:
            for child, worker, _ in (anyone, guarded, shared):
                child.kill()
                worker.wait(10)
    base = statistics.median(costs["no keys"])
    for subject, found in costs.items():
        median = statistics.median(found)
        spread = f"({min(found):.1f} to {max(found):.1f})"
        print(f"{subject:18} {median:6.1f} us an answer {spread}, {median - base:+.1f}")


if __name__ == "__main__":
    main()
