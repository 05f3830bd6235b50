"""The command line as a user types it, against a real service and without one."""

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from models.catalog import find_entries
from service import commands
from service.__main__ import main
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


def test_models_prints_tab_separated_rows_when_piped(service: Service) -> None:
    [row] = run("models", "--url", service.http).stdout.splitlines()
    assert row.split("\t")[:4] == ["cifar10", "1", "yes", "10"]


def test_what_cannot_be_written_is_a_sentence(service: Service, tmp_path: Path) -> None:
    full = f"{sys.executable} -m service classify {CAT} --url {service.http} > /dev/full"
    done = subprocess.run(["/bin/sh", "-c", full], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "Error: output: No space left on device\n")
    (tmp_path / "map.png").mkdir()
    (tmp_path / "folder").symlink_to("/proc")
    mapped = run("classify", CAT, "--url", service.http, "--map", str(tmp_path / "folder" / "map.png"))
    assert mapped.returncode == 1
    assert mapped.stderr.startswith("Error: ")
    assert "Traceback" not in mapped.stderr


def test_a_reader_that_leaves_is_no_error(service: Service) -> None:
    piped = f"{sys.executable} -m service classify tests/data/photos --json --url {service.http} | head -c 1"
    done = subprocess.run(["/bin/sh", "-c", piped], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("{", "")


@pytest.mark.parametrize("source", ["-", "folder"])
def test_ctrl_c_ends_a_command_with_a_word(service: Service, tmp_path: Path, source: str) -> None:
    for number in range(3000):
        (tmp_path / f"{number}.jpg").symlink_to(ROOT / CAT)
    given = source if source == "-" else str(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "classify", given, "--url", service.http],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if source != "-" else None,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    if process.stdout is not None:
        process.stdout.readline()
    else:
        process.stdin.write(b"begun")
        process.stdin.flush()
        wait_until_read(process.stdin.fileno())
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (130, b"stopped\n")


def wait_until_read(pipe: int) -> None:
    """Until the other end has taken what was written."""
    deadline = time.monotonic() + 60
    while struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


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


@pytest.mark.parametrize(
    "arguments",
    [
        ["classify", CAT, "--url", "ftp://somewhere"],
        ["classify", CAT, "--map", "/no/such/folder/map.png"],
        ["classify", CAT, "--top-k", "0"],
        ["models", "--url", "localhost:8080"],
        ["bench", CAT, "-c", "0"],
        ["bench", CAT, "--rate", "-5"],
        ["completion", "csh"],
    ],
    ids=lambda arguments: " ".join(arguments[:1] + arguments[-2:]),
)
def test_wrong_use_is_exit_code_2_and_a_sentence(arguments: list[str]) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert "Error: " in done.output


def test_a_command_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as where only the extra `client` is installed
    monkeypatch.delitem(sys.modules, "models.engines.onnx", raising=False)
    done = CliRunner().invoke(main, ["inspect", "cifar10"])
    assert done.exit_code == 1
    assert "pip install 'resnet-serve[serve]'" in done.output


def test_bench_without_a_server_is_exit_code_3() -> None:
    assert run("bench", CAT, "--url", "http://127.0.0.1:9").returncode == 3


def test_bench_tells_what_no_request_could_pass_with(service: Service) -> None:
    done = run("bench", CAT, "--url", service.http, "--tta", "no_such_policy")
    assert done.returncode == 2
    assert "no_such_policy" in done.stderr


def test_bench_speaks_grpc(service: Service) -> None:
    arguments = ["--url", f"grpc://{service.grpc}", "--metrics-url", f"{service.http}/metrics"]
    done = run("bench", CAT, *arguments, "-c", "2", "--seconds", "0.5", "--warmup", "0.1", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert list(told["codes"]) == ["OK"]
    assert told["mean_batch"] >= 1


def test_a_map_is_written_as_a_picture(service: Service, tmp_path: Path) -> None:
    done = run("classify", CAT, "--url", service.http, "--map", str(tmp_path / "map.png"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_what_takes_over_a_second_shows_its_progress_on_a_terminal(service: Service) -> None:
    terminal, theirs = os.openpty()
    shown: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # it ends so when the other side is closed
            while chunk := os.read(terminal, 1 << 12):
                shown.append(chunk)

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    command = [sys.executable, "-m", "service", "bench", CAT, "--url", service.http, "--json"]
    command += ["--rate", "5", "--seconds", "4", "--warmup", "0"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, timeout=100, check=False)
    os.close(theirs)
    reading.join(20)
    os.close(terminal)
    assert "measuring" in b"".join(shown).decode()
    assert json.loads(done.stdout)["errors"] == 0


def test_every_command_is_found_by_its_name_alone() -> None:
    context = click.Context(main)
    for command in find_entries(commands, "COMMAND", click.Command):
        assert command.name is not None
        assert main.get_command(context, command.name) is command
    for name in ("nope", "server", "terminal", "__init__", "os.path", "../serve"):
        assert main.get_command(context, name) is None


def test_serving_starts_without_the_clients_libraries() -> None:
    code = "import sys, service.__main__, service.commands.serve; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {"httpx", "grpc", "numpy", "PIL", "rich"} & set(loaded.stdout.split()) == set()
