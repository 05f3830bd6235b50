"""A worker process as the supervisor starts it, with the model that ships."""

import base64
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from models.repository import read_version
from models.selftest import decode_golden
from service.board import Board
from service.messages import Drain, Heartbeat, Ready, Refused, Result, StartWorker
from service.settings import Settings
from service.transport import ControlChannel
from service.types import ClassifyOptions
from service.worker.main import EXIT_REFUSED
from tests.service.worker.running import Frontend

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = ROOT / "models" / "zoo" / "cifar10" / "1"
TIMEOUT_S = 60.0


@contextmanager
def start_worker(
    version: Path, metrics_dir: Path, **settings: str
) -> Iterator[tuple[subprocess.Popen[bytes], ControlChannel]]:
    """The process and the supervisor's end of its control channel."""
    ours, theirs = ControlChannel.make_pair()
    board = Board.create()
    process = subprocess.Popen(
        [sys.executable, "-m", "service.child", "worker", str(theirs.fileno())],
        cwd=ROOT,
        pass_fds=[theirs.fileno()],
        stderr=subprocess.PIPE,
    )
    theirs.close()
    text = Settings(**settings).to_json()  # type: ignore[arg-type]  # names of settings, all of them text
    ours.send(StartWorker(0, text, str(metrics_dir), str(version), "cpu", 2), board.fd)
    try:
        yield process, ours
    finally:
        process.kill()
        process.communicate()
        ours.close()
        board.close()


def hear(control: ControlChannel) -> object:
    """The next message that is no heartbeat; None when the worker is gone."""
    while (received := control.receive()) is not None:
        if not isinstance(received[0], Heartbeat):
            return received[0]
    return None


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], ControlChannel]]:
    """A worker that is up."""
    with start_worker(SHIPPED, tmp_path) as (process, control):
        ready = hear(control)
        assert isinstance(ready, Ready)
        assert ready.cost_ms["ten_crop"] > 5 * ready.cost_ms["center"] > 0
        yield process, control


def test_golden_images_get_the_logits_that_torch_gave(
    worker: tuple[subprocess.Popen[bytes], ControlChannel],
) -> None:
    card = read_version(SHIPPED).card
    side = card.preprocess.crop_px  # others are no view that a policy cuts from themselves
    native = [golden for golden in card.golden if decode_golden(golden).shape == (side, side, 3)]
    assert native
    frontend = Frontend(worker[1], 0)
    with frontend.socket:
        for id, golden in enumerate(native):
            frontend.send(id, base64.b64decode(golden.png), ClassifyOptions(tta="center", wants_logits=True))
        answers = [frontend.receive(id) for id in range(len(native))]
    for answer, golden in zip(answers, native, strict=True):
        assert isinstance(answer, Result)
        assert answer.logits is not None
        scale = max(1.0, float(np.abs(golden.logits).max()))
        assert np.abs(np.subtract(answer.logits, golden.logits)).max() / scale < card.tolerance["fp32"]


def test_drained_worker_exits_zero(worker: tuple[subprocess.Popen[bytes], ControlChannel]) -> None:
    process, control = worker
    control.send(Drain())
    assert process.wait(TIMEOUT_S) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_of_the_terminal_are_the_supervisors_business(
    worker: tuple[subprocess.Popen[bytes], ControlChannel], number: signal.Signals
) -> None:
    process, control = worker
    process.send_signal(number)
    time.sleep(0.2)
    control.send(Drain())
    assert process.wait(TIMEOUT_S) == 0


def test_worker_ends_when_the_supervisors_end_is_closed(
    worker: tuple[subprocess.Popen[bytes], ControlChannel],
) -> None:
    process, control = worker
    control.close()
    assert process.wait(TIMEOUT_S) != 0


def test_fatal_signal_leaves_its_stack_on_stderr(
    worker: tuple[subprocess.Popen[bytes], ControlChannel],
) -> None:
    process, _ = worker
    process.send_signal(signal.SIGSEGV)
    _, last_words = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == -signal.SIGSEGV
    assert b"Segmentation fault" in last_words
    assert b"service/worker/" in last_words


def test_damaged_version_is_refused_with_its_fault(tmp_path: Path) -> None:
    copy = tmp_path / "cifar10" / "1"
    shutil.copytree(SHIPPED, copy)
    weights = bytearray((copy / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "weights.safetensors").write_bytes(weights)
    with start_worker(copy, tmp_path) as (process, control):
        refused = hear(control)
        assert isinstance(refused, Refused)
        assert "weights.safetensors" in refused.reason
        assert process.wait(TIMEOUT_S) == EXIT_REFUSED
