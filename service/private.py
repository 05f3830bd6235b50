"""A service of one's own for the length of a command: the same processes, on free loopback ports.

So a picture classified with --local takes the same path, limits and answers as one sent to a server.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import IO

from service.client import Client
from service.errors import Internal

START_S = 60.0
STOP_S = 30.0


@contextmanager
def run_private_service(repository: str | None = None) -> Iterator[str]:
    """Start it, yield its URL once it is ready, stop it; raises Internal with its last words if it fails."""
    command = [sys.executable, "-m", "service", "serve", "--log-format", "json", "--drain-delay", "0"]
    command += ["--http-port", "0", "--grpc-port", "0", "--admin-port", "0"]
    command += ["--model-repository", repository] if repository else []
    with TemporaryFile() as log:
        process = subprocess.Popen(command, stderr=log, process_group=0)  # noqa: S603  # our own module
        try:
            yield _wait_until_ready(process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_ready(process: subprocess.Popen[bytes], log: IO[bytes]) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        url = _find_url(log)
        if url is not None:
            with Client(url, attempts=1, timeout_s=5) as client:
                while time.monotonic() < deadline and process.poll() is None:
                    if client.is_ready():
                        return url
                    time.sleep(0.02)
        time.sleep(0.02)
    words = os.pread(log.fileno(), 1 << 20, 0).decode(errors="replace").strip().splitlines()
    raise Internal(words[-1] if words else "the service did not start")


def _find_url(log: IO[bytes]) -> str | None:
    for line in os.pread(log.fileno(), 1 << 20, 0).splitlines():
        if line.startswith(b"{") and line.endswith(b"}"):
            told = json.loads(line)
            if told["message"] == "listening":
                return f"http://{told['http']}"
    return None
