"""Servers as benchmarks start them: from a command to its first answer; memory, processor time, its end."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.load import Endpoint

START_S = 120.0
STOP_S = 20.0
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Server:
    """One that runs; `start_s`: from `began` to its first answer of status 200, or until it listened."""

    process: subprocess.Popen[bytes]
    began: float
    start_s: float

    def list_pids(self) -> list[int]:
        """Itself and every process that descends from it."""
        parents = {pid: parent for pid in _list_all() if (parent := _read_parent(pid)) is not None}
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def pss_mb(self) -> float:
        """Its memory, pages that its processes share counted once (proportional set size)."""
        kilobytes = 0
        for pid in self.list_pids():
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            kilobytes += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        return kilobytes / 1024

    def cpu_s(self) -> float:
        """Processor seconds of its living processes so far."""
        ticks = 0
        for pid in self.list_pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # utime and stime, proc(5)
        return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def run_server(
    command: Sequence[str], endpoint: Endpoint, image: bytes, extra: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start `command`, yield it once it has answered `image`, end it and all that it started."""
    with run_process(command, endpoint.port, extra) as server:
        _wait_first_answer(server, endpoint, image)
        yield Server(server.process, server.began, round(time.perf_counter() - server.began, 3))


@contextmanager
def run_process(
    command: Sequence[str], port: int, extra: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start `command`, yield it once it listens on `port`, end it and all that it started."""
    began = time.perf_counter()
    environment = os.environ | dict(extra or {})
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        process_group=0,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _is_listening(port):
            _check_start(process, began)
        yield Server(process, began, round(time.perf_counter() - began, 3))
    finally:
        _end(Server(process, began, 0.0))


def find_port() -> int:
    """One that is free."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def _wait_first_answer(server: Server, endpoint: Endpoint, image: bytes) -> None:
    request = endpoint.write_request(image)
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", endpoint.port), timeout=30) as sock:
            sock.sendall(request)
            if sock.recv(1 << 16).startswith(b"HTTP/1.1 200"):
                return
        _check_start(server.process, server.began)


def _is_listening(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=30):
        return True
    return False


def _check_start(process: subprocess.Popen[bytes], began: float) -> None:
    """Wait a little; raises RuntimeError if it has ended or takes too long."""
    if process.poll() is not None:
        raise RuntimeError(f"{process.args!r} ended with status {process.returncode}")
    if time.perf_counter() - began > START_S:
        raise RuntimeError(f"{process.args!r} did not answer within {START_S:.0f} s")
    time.sleep(0.01)


def _end(server: Server) -> None:
    pids = server.list_pids()
    server.process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        server.process.wait(STOP_S)
    for pid in pids[1:]:  # within seconds, no other process has got such a number
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.process.wait()


def _list_all() -> list[int]:
    return [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()]


def _read_parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None
