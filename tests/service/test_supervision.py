"""The supervisor's decisions, without processes: when to restart, what to serve, whom to suspect."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.backoff import LONGEST_DELAY_S, Backoff
from service.board import Board, Stage
from service.devices import list_devices
from service.listening import open_listeners
from service.seats import name_cause
from service.settings import BadSettings, load_settings


def test_killed_worker_that_was_up_restarts_at_once() -> None:
    backoff = Backoff()
    assert backoff.may_start(100.0)
    backoff.note_death(101.0, was_up=True, was_killed=True)
    assert backoff.may_start(101.0)


def test_failures_in_a_row_wait_longer_and_longer_up_to_a_bound() -> None:
    backoff, now, delays = Backoff(), 0.0, []
    for _ in range(12):
        assert backoff.may_start(now)
        backoff.note_death(now, was_up=False, was_killed=False)
        delays.append(backoff.not_before - now)
        assert not backoff.may_start(now)
        now = backoff.not_before
    assert delays == sorted(delays)
    assert delays[0] < 0.5
    assert delays[-1] == LONGEST_DELAY_S


def test_board_outlives_its_writer() -> None:
    board = Board.create()
    writer = (
        "import sys; from service.board import Board, Stage\n"
        f"Board({board.fd}).enter(5, Stage.DECODE, 2, 77, 9.5)\n"
        "import os; os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", writer], pass_fds=[board.fd], check=False)
    assert done.returncode == -signal.SIGKILL
    (lane,) = board.read()
    assert (lane.stage, lane.frontend, lane.id, lane.deadline) == (Stage.DECODE, 2, 77, 9.5)
    assert lane.since <= time.monotonic()
    board.leave(5)
    assert board.read() == []
    board.close()


def test_taken_port_is_told_with_its_setting() -> None:
    listeners = open_listeners(load_settings({"http_port": "0", "grpc_port": "0", "admin_port": "0"}, {}))
    port = str(listeners.http.getsockname()[1])
    taken = load_settings({"http_port": port, "grpc_port": "0", "admin_port": "0"}, {})
    with pytest.raises(BadSettings, match=f"SERVE_HTTP_PORT={port} on 127.0.0.1: another program"):
        open_listeners(taken)
    listeners.close()


@pytest.mark.parametrize(
    ("devices", "workers", "expected"),
    [
        pytest.param("cpu", "1", [("cpu", len(os.sched_getaffinity(0)))], id="one worker has every core"),
        pytest.param(
            "cpu", "2", [("cpu", max(1, len(os.sched_getaffinity(0)) // 2))], id="two share the cores"
        ),
    ],
)
def test_cores_are_shared_out(devices: str, workers: str, expected: list[tuple[str, int]]) -> None:
    settings = load_settings({"devices": devices, "workers_per_device": workers}, {})
    assert list_devices(settings) == expected


def test_unknown_device_is_refused() -> None:
    with pytest.raises(BadSettings, match="'tpu' is not a device"):
        list_devices(load_settings({"devices": "tpu"}, {}))


def test_causes_of_death_have_names() -> None:
    assert name_cause(-11) == "SIGSEGV"
    assert name_cause(3) == "exit code 3"


def test_empty_repository_is_refused_with_a_remedy(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "service", "serve", "--model-repository", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no model version to serve is there" in done.stderr


def test_misspelt_option_suggests_the_right_one() -> None:
    command = [sys.executable, "-m", "service", "serve", "--http-prot", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--http-port" in done.stderr
