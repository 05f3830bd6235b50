"""A real service for tests: the command a user types, on free ports, with its log at hand."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
PHOTOGRAPHS = ROOT / "tests" / "data"
START_S = 100.0  # three torch workers on a machine that is busy with other work took over 60


@dataclass(slots=True)
class Service:
    """A running service. `http`: its base URL; `grpc` and `admin`: host:port, "" where closed."""

    process: subprocess.Popen[bytes]
    log_file: IO[bytes]
    http: str
    grpc: str
    admin: str

    @property
    def log(self) -> list[dict[str, Any]]:
        """Every log line so far."""
        return _read_log(self.log_file)

    def list_pids(self) -> list[int]:
        """The children's process ids, as the operating system has them now."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def get_json(self, path: str) -> Any:
        """The JSON of a GET."""
        with urllib.request.urlopen(self.http + path, timeout=30) as answer:
            return json.load(answer)

    def post_image(self, image: bytes, query: str = "") -> Any:
        """The JSON of /v1/classify for the raw body; raises HTTPError for other statuses than 200."""
        request = urllib.request.Request(f"{self.http}/v1/classify{query}", image, method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 40.0) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout_s)


@contextmanager
def run_service(repository: Path | str | None = None, **settings: object) -> Iterator[Service]:
    """Start `python -m service serve` with `settings` (lower-case names), wait until it is ready, stop it."""
    given = {"http_port": 0, "grpc_port": 0, "admin_port": 0, "log_format": "json", **settings}
    if repository is not None:
        given["model_repository"] = repository
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SERVE_")}
    environment |= {f"SERVE_{name.upper()}": str(value) for name, value in given.items()}
    with TemporaryFile() as log_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve"], cwd=ROOT, env=environment, stderr=log_file
        )
        try:
            yield _wait_until_ready(process, log_file)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], log_file: IO[bytes]) -> Service:
    deadline = time.monotonic() + START_S
    service: Service | None = None
    while time.monotonic() < deadline and process.poll() is None:
        for line in _read_log(log_file):
            if line["message"] == "listening":
                service = Service(
                    process, log_file, f"http://{line['http']}", line["grpc"], line.get("admin", "")
                )
        if service is not None and _is_ready(service):
            return service
        time.sleep(0.05)
    log_file.seek(0)
    raise AssertionError(f"the service did not get ready:\n{log_file.read().decode(errors='replace')}")


def _read_log(log_file: IO[bytes]) -> list[dict[str, Any]]:
    written = os.pread(log_file.fileno(), 1 << 26, 0).decode(errors="replace")
    return [json.loads(line) for line in written.splitlines() if line.startswith("{") and line.endswith("}")]


def _is_ready(service: Service) -> bool:
    try:
        with urllib.request.urlopen(service.http + "/readyz", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False
