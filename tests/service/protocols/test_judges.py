"""Other servers' clients, unmodified, against a real frontend and, where there is one, a real worker."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.messages import Classify, Failure
from tests.service.frontends import COST_MS, Answers, RunningFrontend, answer_at_once, run_frontend

JUDGES = Path(__file__).parent / "judges"
ROOT = Path(__file__).resolve().parents[3]


def answer_images(message: Classify, image: bytes) -> Answers:
    """As a worker does, as far as these clients notice."""
    if message.options.tta not in COST_MS:
        return [(Failure(message.id, "bad-request", "no such view policy", 0.0), b"")]
    if not image.startswith(b"\xff\xd8"):
        return [(Failure(message.id, "unsupported-format", "the image is of no accepted format", 0.0), b"")]
    return answer_at_once(message, image)


@pytest.fixture
def frontend() -> Iterator[RunningFrontend]:
    with run_frontend() as frontend:
        frontend.add_worker(1, answer_images)
        yield frontend


@pytest.mark.parametrize("client", ["tritonclient", "kserve"])
def test_another_servers_client_is_served(frontend: RunningFrontend, tmp_path: Path, client: str) -> None:
    if importlib.util.find_spec(client) is None:
        pytest.skip(f"{client} is not installed")
    files = [tmp_path / name for name in ("first", "second")]
    for file in files:
        file.write_bytes(b"\xff\xd8" + file.name.encode())
    run_judge(client, frontend.http_port, frontend.grpc_port, files)


def run_judge(client: str, http_port: int, grpc_port: int, files: list[Path]) -> None:
    """Run the judge in a process of its own; its complaint is the failure."""
    addresses = [f"127.0.0.1:{port}" for port in (http_port, grpc_port)]
    done = subprocess.run(
        [sys.executable, JUDGES / f"{client}_judge.py", *addresses, *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
