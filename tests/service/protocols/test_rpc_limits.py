"""What the gRPC port allows a connection, seen from a bare HTTP/2 socket: streams, metadata, pings, age."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.protocols import rpc
from tests.service.protocols.faults import Served, serve_rpc

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Types of frames, RFC 9113 section 6; numbers of settings and of an error from its sections 6.5.2 and 7.
SETTINGS, PING, GOAWAY = 4, 6, 7
MAX_CONCURRENT_STREAMS, MAX_HEADER_LIST_SIZE = 3, 6
NO_ERROR, ENHANCE_YOUR_CALM = 0, 11


@dataclass(frozen=True, slots=True)
class Frame:
    kind: int
    flags: int
    payload: bytes


def write_frame(kind: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + bytes(4) + payload


class Connection:
    """Reads frames and answers none but the settings."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._file = sock.makefile("rb")
        sock.sendall(PREFACE + write_frame(SETTINGS))

    def read(self) -> Frame | None:
        """The next frame; None at the end."""
        head = self._file.read(9)
        if len(head) < 9:
            return None
        return Frame(head[3], head[4], self._file.read(int.from_bytes(head[:3], "big")))

    def find(self, kind: int) -> Frame | None:
        """The next frame of that kind; None at the end."""
        while (frame := self.read()) is not None and frame.kind != kind:
            if frame.kind == SETTINGS and not frame.flags:
                self.sock.sendall(write_frame(SETTINGS, flags=1))
        return frame

    def close(self) -> None:
        self._file.close()


@contextmanager
def connect(served: Served) -> Iterator[Connection]:
    host, port = served.address.split(":")
    with socket.create_connection((host, int(port)), 60) as sock:
        connection = Connection(sock)
        try:
            yield connection
        finally:
            connection.close()


@contextmanager
def connect_hurried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **seconds: int) -> Iterator[Connection]:
    """A connection to a server whose clocks run faster."""
    for name, value in seconds.items():
        monkeypatch.setattr(rpc, name, value)
    with serve_rpc(tmp_path) as served, connect(served) as connection:
        yield connection


def read_end(frame: Frame | None) -> tuple[int, bytes]:
    assert frame is not None
    return struct.unpack(">I", frame.payload[4:8])[0], frame.payload[8:]


def test_a_connection_is_told_how_many_streams_and_how_much_metadata(served: Served) -> None:
    with connect(served) as connection:
        frame = connection.find(SETTINGS)
    assert frame is not None
    told = dict(struct.iter_unpack(">HI", frame.payload))
    assert told[MAX_CONCURRENT_STREAMS] == rpc.MAX_STREAMS
    assert told[MAX_HEADER_LIST_SIZE] == rpc.MAX_METADATA_BYTES


def test_a_client_that_pings_too_often_is_sent_away(served: Served) -> None:
    with connect(served) as connection:
        connection.sock.sendall(write_frame(PING, bytes(8)) * 5)
        assert read_end(connection.find(GOAWAY)) == (ENHANCE_YOUR_CALM, b"too_many_pings")


def test_a_client_that_does_not_answer_pings_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect_hurried(tmp_path, monkeypatch, PING_S=1, PING_TIMEOUT_S=1) as connection:
        assert connection.find(PING) is not None
        while connection.read() is not None:
            continue


def test_an_old_connection_is_told_to_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect_hurried(tmp_path, monkeypatch, MAX_AGE_S=1) as connection:
        assert read_end(connection.find(GOAWAY)) == (NO_ERROR, b"max_age")
