"""Fewer file descriptors than SERVE_MAX_CONNECTIONS asks for: as many connections as fit, and no more."""

import json
import resource
import socket
import subprocess
import sys
from contextlib import ExitStack

import httpx
import pytest

from service.descriptors import OTHERS, fit_connections, raise_descriptor_limit
from tests.service.frontends import run_frontend
from tests.serving import ROOT

DESCRIPTORS = 200


@pytest.mark.parametrize(
    ("descriptors", "connections"),
    [
        pytest.param(20_000, 4_096, id="all of them"),
        pytest.param(4_096 + OTHERS, 4_096, id="just all of them"),
        pytest.param(4_096, 4_096 - OTHERS, id="what the rest leaves"),
        pytest.param(400, 200, id="at least half"),
        pytest.param(resource.RLIM_INFINITY, 4_096, id="no limit"),
    ],
)
def test_connections_fit_into_the_descriptors(descriptors: int, connections: int) -> None:
    assert fit_connections(4_096, descriptors) == connections


def test_a_frontend_takes_no_more_connections_than_it_has_room_for() -> None:
    """In a process of its own: who lowers the hard limit cannot raise it again."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.service.test_descriptors"], cwd=ROOT, capture_output=True, check=False
    )
    assert ran.returncode == 0, ran.stderr.decode()
    told = f"503 {DESCRIPTORS // 2} connections are open (SERVE_MAX_CONNECTIONS)"
    assert ran.stdout.decode().strip() == told
    logged = ran.stderr.decode().splitlines()
    (warning,) = [json.loads(line) for line in logged if "fewer connections" in line]
    assert (warning["descriptors"], warning["connections"]) == (DESCRIPTORS, DESCRIPTORS // 2)


def main() -> None:
    """Print what the first connection over those that fit is told."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS // 4, DESCRIPTORS))
    with run_frontend(log_format="json") as frontend, ExitStack() as held:
        raise_descriptor_limit()
        for _ in range(DESCRIPTORS // 2):
            held.enter_context(socket.create_connection(("127.0.0.1", frontend.http_port), 60))
        answer = httpx.get(f"{frontend.url}/livez", timeout=60)
        sys.stdout.write(f"{answer.status_code} {answer.json()['detail']}\n")


if __name__ == "__main__":
    main()
