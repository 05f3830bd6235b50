"""Drives a worker process over its real connection: frames out, answers in, a fixed number in flight."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.board import Board
from service.messages import Classify, Drain, Failure, FrontendUp, Ready, Result, StartWorker
from service.transport import ControlChannel, FrameReader, encode_frame, make_work_pair
from service.types import ClassifyOptions

TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Drive:
    """What a drive measured; `failures` are counted among `answers`.

    Latencies in milliseconds; `core_ms`: processor time of the worker for one answer.
    """

    concurrency: int
    answers: int
    failures: int
    rate_per_s: float
    p50_ms: float
    p99_ms: float
    core_ms: float


class WorkerProcess:
    """A worker started by exec with one frontend connection: ours. A context manager that drains it."""

    def __init__(self, command: Sequence[str], start: StartWorker | None = None) -> None:
        """`command` and the number of its control channel start it; `start` is its first message, if any."""
        ours, theirs = ControlChannel.make_pair()
        self._started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, *command, str(theirs.fileno())], pass_fds=[theirs.fileno()]
        )
        theirs.close()
        self.control = ours
        self.board = Board.create()
        if start is not None:
            self.control.send(start, self.board.fd)
        while not isinstance(message := self._receive(), Ready):
            continue
        self.start_s = time.monotonic() - self._started
        self.cost_ms = message.cost_ms
        self.socket, end = make_work_pair()
        with end:
            self.control.send(FrontendUp(0), end.fileno())
        self._reader = FrameReader()

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.control.send(Drain())
        self.process.wait(TIMEOUT_S)
        self.socket.close()
        self.control.close()
        self.board.close()

    def drive(
        self, images: Sequence[bytes], options: ClassifyOptions, concurrency: int, seconds: float
    ) -> Drive:
        """Keep `concurrency` of `images`, in turn, in flight for `seconds`."""
        sent_at: dict[int, float] = {}
        latencies: list[float] = []
        failures = 0
        used_s = self._read_used_s()
        started = time.monotonic()
        until = started + seconds
        self._send(images, options, range(concurrency), sent_at)
        next_id = concurrency
        while sent_at:
            done = self._read_answers()
            now = time.monotonic()
            for answer in done:
                latencies.append((now - sent_at.pop(answer.id)) * 1000)
                failures += isinstance(answer, Failure)
            if now < until:
                self._send(images, options, range(next_id, next_id + len(done)), sent_at)
                next_id += len(done)
        took_s = time.monotonic() - started
        latencies.sort()
        p50, p99 = latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100]
        core_ms = 1000 * (self._read_used_s() - used_s) / len(latencies)
        return Drive(concurrency, len(latencies), failures, len(latencies) / took_s, p50, p99, core_ms)

    def _read_used_s(self) -> float:
        """Processor seconds the worker has used, user and system."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _send(
        self, images: Sequence[bytes], options: ClassifyOptions, ids: range, sent_at: dict[int, float]
    ) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        frames = [
            encode_frame(Classify(id, f"bench-{id}", deadline, options), images[id % len(images)])
            for id in ids
        ]
        sent_at.update(dict.fromkeys(ids, time.monotonic()))
        self.socket.sendall(b"".join(frames))

    def _read_answers(self) -> list[Result | Failure]:
        frames = self._reader.feed(self.socket.recv(1 << 18))
        return [message for message, _ in frames if isinstance(message, Result | Failure)]

    def _receive(self) -> object:
        received = self.control.receive()
        if received is None:
            raise RuntimeError(f"the worker ended with {self.process.wait()}")
        return received[0]


ECHO = """
import socket, sys
peer, frame_bytes, left = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), int(sys.argv[2])
try:
    while data := peer.recv(1 << 18):
        left -= len(data)
        while left <= 0:
            peer.sendall(bytes(100))
            left += frame_bytes
except BrokenPipeError:
    pass
"""


def measure_echo(payload: bytes, concurrency: int, seconds: float) -> float:
    """The limit: round trips per second over the same kind of socket to a process that only echoes."""
    ours, theirs = make_work_pair()
    arguments = [sys.executable, "-c", ECHO, str(theirs.fileno()), str(len(payload))]
    child = subprocess.Popen(arguments, pass_fds=[theirs.fileno()])
    theirs.close()
    answers, received = 0, 0
    ours.sendall(payload)
    received = 100 - len(ours.recv(100))  # it is up
    started = time.monotonic()
    ours.sendall(payload * concurrency)
    while time.monotonic() - started < seconds:
        received += len(ours.recv(1 << 18))
        done, received = divmod(received, 100)
        answers += done
        ours.sendall(payload * done)
    took_s = time.monotonic() - started
    ours.close()
    child.wait(TIMEOUT_S)
    return answers / took_s
