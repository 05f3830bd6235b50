"""The command line as a user types it, against a real service and without one."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import PHOTOGRAPHS, ROOT, Service, run_service

CAT = str(PHOTOGRAPHS / "cat.jpg")


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with run_service() as running:
        yield running


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", *arguments]
    done = subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, timeout=100, check=False)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_classify_prints_tab_separated_rows_when_piped(service: Service) -> None:
    done = run("classify", CAT, "--url", service.http, "--top-k", "2")
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == [CAT, CAT]
    assert rows[0][1] == "cat"


def test_classify_reads_standard_input_and_speaks_grpc(service: Service) -> None:
    image = Path(CAT).read_bytes()
    done = run("classify", "-", "--url", f"grpc://{service.grpc}", "--json", stdin=image)
    assert json.loads(done.stdout)["predictions"][0]["label"] == "cat"


def test_one_bad_picture_of_several_is_exit_code_1(service: Service, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    done = run("classify", CAT, str(bad), "--url", service.http)
    assert done.returncode == 1
    assert "cat" in done.stdout
    assert str(bad) in done.stderr


def test_folder_is_searched_for_pictures(service: Service) -> None:
    done = run("classify", str(PHOTOGRAPHS), "--url", service.http, "--json", "--top-k", "1")
    files = [json.loads(line)["file"] for line in done.stdout.splitlines()]
    assert CAT in files


def test_no_server_is_exit_code_3() -> None:
    done = run("classify", CAT, "--url", "http://127.0.0.1:9")
    assert done.returncode == 3


def test_local_needs_no_server() -> None:
    done = run("classify", CAT, "--local", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["predictions"][0]["label"] == "cat"


def test_models_lists_the_shipped_one(service: Service) -> None:
    done = run("models", "--url", service.http, "--json")
    assert json.loads(done.stdout.splitlines()[0])["name"] == "cifar10"


def test_inspect_checks_the_shipped_model() -> None:
    done = run("inspect", "cifar10")
    assert done.returncode == 0, done.stderr
    assert "golden images" in done.stdout


def test_inspect_of_nothing_is_exit_code_2() -> None:
    assert run("inspect", "nobody").returncode == 2


def test_bench_reports_rate_and_percentiles(service: Service) -> None:
    arguments = ["--url", service.http, "-c", "2", "--seconds", "0.5", "--warmup", "0.1", "--json"]
    done = run("bench", CAT, *arguments)
    told = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert told["errors"] == 0
    assert told["rate_per_s"] > 0
    assert told["mean_batch"] >= 1


def test_open_loop_bench_sends_what_was_asked(service: Service) -> None:
    arguments = ["--url", service.http, "--rate", "20", "--seconds", "2", "--warmup", "0.1", "--json"]
    done = run("bench", CAT, *arguments)
    assert 15 <= sum(json.loads(done.stdout)["codes"].values()) <= 70
