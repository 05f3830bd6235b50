"""The command that probes run, against real frontends, whatever these ask of their callers."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import cast

import httpx
import pytest
from click.testing import CliRunner

from service.__main__ import main
from service.settings import PREFIX
from tests.service.access.certificates import Authority, needs_openssl
from tests.service.frontends import run_frontend, wait_for

ROOT = Path(__file__).resolve().parents[2]
PORTS = ("http", "grpc", "admin")


def find_ports() -> dict[str, str]:
    """Ports that are free now, as settings."""
    held = {name: socket.create_server(("127.0.0.1", 0)) for name in PORTS}
    try:
        return {f"{name}_port": str(sock.getsockname()[1]) for name, sock in held.items()}
    finally:
        for sock in held.values():
            sock.close()


def run_probe(settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """As the image does, with the service's own environment."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
    environment |= {f"{PREFIX}{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "service.health"]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


@needs_openssl
@pytest.mark.parametrize("asks", ["nothing", "TLS", "certificates"])
def test_the_probe_follows_readiness_whatever_is_asked_of_callers(tmp_path: Path, asks: str) -> None:
    authority = Authority(tmp_path)
    pair = authority.sign("elsewhere")
    given = find_ports()
    if asks != "nothing":
        given |= {"tls_cert": str(pair.cert), "tls_key": str(pair.key)}
    if asks == "certificates":
        given |= {"tls_client_ca": str(authority.cert)}
    with run_frontend(**given) as frontend:
        assert run_probe(given).returncode == 1
        frontend.add_worker(1)
        wait_for(lambda: run_probe(given).returncode == 0)
        assert run_probe(given).stdout == "ready\n"
        frontend.kill_worker(1)
        wait_for(lambda: run_probe(given).returncode == 1)
        assert run_probe(given).stderr == "the service is not ready\n"


@needs_openssl
def test_the_admin_port_tells_strangers_its_health_and_nothing_else(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.sign("server")
    files = {"tls_cert": str(pair.cert), "tls_key": str(pair.key), "tls_client_ca": str(authority.cert)}
    with run_frontend(admin_port="0", **files) as frontend:
        admin = cast(socket.socket, frontend.listeners.admin)
        with httpx.Client(base_url=f"http://127.0.0.1:{admin.getsockname()[1]}") as stranger:
            assert stranger.get("/livez").status_code == 200
            assert stranger.get("/readyz").status_code == 503
            for path in ("/metrics", "/v1/versions", "/v1/classify"):
                assert stranger.get(path).status_code == 403, path


def test_a_service_that_is_not_there_is_not_ready() -> None:
    done = run_probe(find_ports())
    assert done.returncode == 1
    assert "refused" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_line_has_it_too() -> None:
    done = CliRunner(env={f"{PREFIX}{name.upper()}": port for name, port in find_ports().items()}).invoke(
        main, ["health"]
    )
    assert done.exit_code == 1
    assert "refused" in done.output


def test_the_image_checks_its_health_with_it() -> None:
    line = re.search(r"^HEALTHCHECK .*$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert line is not None
    assert line[0].endswith('CMD ["python", "-m", "service.health"]')
