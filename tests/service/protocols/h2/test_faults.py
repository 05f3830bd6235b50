"""What a peer does wrong ends the stream or the connection that it did it on, with the code of RFC 9113."""

import asyncio
import random
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hpack import Encoder

from tests.service.frontends import read_memory_kb, run_frontend
from tests.service.protocols.faults import Served, serve_rpc
from tests.service.protocols.h2.peer import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM,
    WINDOW_UPDATE,
    Peer,
    connect,
    connect_to,
    read_answer,
    write_frame,
    write_image,
    write_item,
    write_settings,
    write_window,
)

PROTOCOL, FLOW, CLOSED, SIZE, REFUSED, COMPRESSION, CALM = 1, 3, 5, 6, 7, 9, 11
HALF_HEADERS = write_frame(HEADERS, b"\x82", 0, 3)


def check_served(served: Served) -> None:
    """A caller who does everything right is answered."""
    with connect(served) as peer:
        assert read_answer(peer.finish(peer.ask(write_image()))).predictions[0].label == "dog"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        pytest.param(write_frame(DATA, b"x"), PROTOCOL, id="data on no stream"),
        pytest.param(write_frame(DATA, b"x", stream=9), PROTOCOL, id="data on an idle stream"),
        pytest.param(write_frame(DATA, b"\x05ab", PADDED, 1), PROTOCOL, id="more padding than data"),
        pytest.param(write_frame(DATA, b"", PADDED, 1), PROTOCOL, id="padding without its length"),
        pytest.param(write_frame(HEADERS, b"\x82", END_HEADERS), PROTOCOL, id="headers on no stream"),
        pytest.param(write_frame(HEADERS, b"\x82", END_HEADERS, 2), PROTOCOL, id="a stream of even number"),
        pytest.param(write_frame(HEADERS, b"\xff", END_HEADERS, 3), COMPRESSION, id="headers that are none"),
        pytest.param(
            write_frame(HEADERS, b"\x09\x82", END_HEADERS | PADDED, 3), PROTOCOL, id="headers all padding"
        ),
        pytest.param(
            write_frame(HEADERS, b"\0\0", END_HEADERS | HAS_PRIORITY, 3), SIZE, id="half a priority"
        ),
        pytest.param(write_frame(PRIORITY, bytes(4), stream=3), PROTOCOL, id="a short priority"),
        pytest.param(write_frame(PRIORITY, bytes(5)), PROTOCOL, id="a priority on no stream"),
        pytest.param(write_frame(RST_STREAM, bytes(4)), PROTOCOL, id="a reset of no stream"),
        pytest.param(write_frame(RST_STREAM, bytes(4), stream=9), PROTOCOL, id="a reset of an idle stream"),
        pytest.param(write_frame(RST_STREAM, bytes(3), stream=1), SIZE, id="a short reset"),
        pytest.param(write_frame(SETTINGS, bytes(5)), SIZE, id="half a setting"),
        pytest.param(write_frame(SETTINGS, bytes(6), 1), SIZE, id="an acknowledgement with settings"),
        pytest.param(write_frame(SETTINGS, b"", 0, 1), SIZE, id="settings on a stream"),
        pytest.param(write_settings(window=1 << 31), FLOW, id="a window beyond all"),
        pytest.param(write_settings(frame=100), PROTOCOL, id="frames too small"),
        pytest.param(write_settings(frame=1 << 24), PROTOCOL, id="frames too large"),
        pytest.param(write_settings(push=2), PROTOCOL, id="push neither on nor off"),
        pytest.param(write_frame(PUSH_PROMISE, bytes(8), stream=1), PROTOCOL, id="a promise"),
        pytest.param(write_frame(PING, bytes(7)), SIZE, id="a short ping"),
        pytest.param(write_frame(PING, bytes(8), stream=1), SIZE, id="a ping on a stream"),
        pytest.param(write_frame(GOAWAY, bytes(8), stream=1), PROTOCOL, id="a goodbye on a stream"),
        pytest.param(write_window(0), PROTOCOL, id="a window widened by nothing"),
        pytest.param(write_window((1 << 31) - 1), FLOW, id="the connection's window beyond all"),
        pytest.param(write_window(1, 9), PROTOCOL, id="the window of an idle stream"),
        pytest.param(write_frame(WINDOW_UPDATE, bytes(5)), SIZE, id="a long window"),
        pytest.param(write_frame(CONTINUATION, b"\x82", END_HEADERS, 1), PROTOCOL, id="goes on with nothing"),
        pytest.param(
            HALF_HEADERS + write_frame(PING, bytes(8)),
            PROTOCOL,
            id="a ping in headers",
        ),
        pytest.param(
            HALF_HEADERS + write_frame(DATA, b"x", 0, 1),
            PROTOCOL,
            id="data in headers",
        ),
        pytest.param(
            HALF_HEADERS + write_frame(CONTINUATION, b"\x82", 4, 5),
            PROTOCOL,
            id="goes on with other headers",
        ),
        pytest.param(struct.pack(">I", 1 << 20)[1:] + bytes(6), SIZE, id="data of a megabyte a frame"),
        pytest.param(struct.pack(">I", 70_000)[1:] + b"\4" + bytes(5), SIZE, id="large settings"),
    ],
)
def test_a_fault_of_the_connection_ends_it(served: Served, frame: bytes, code: int) -> None:
    with connect(served) as peer:
        peer.open()
        peer.send(frame)
        peer.read_all()
        assert peer.goaway is not None
        assert peer.goaway[0] == code
    assert served.classifier.held_bytes == 0
    check_served(served)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        pytest.param([write_window(0, 1)], PROTOCOL, id="a stream's window widened by nothing"),
        pytest.param([write_window((1 << 31) - 1, 1)], FLOW, id="a stream's window beyond all"),
        pytest.param([write_frame(HEADERS, b"\x82", END_HEADERS, 1)], PROTOCOL, id="trailers that go on"),
    ],
)
def test_a_fault_of_a_stream_leaves_the_connection_alone(
    served: Served, frames: list[bytes], code: int
) -> None:
    with connect(served) as peer:
        stream = peer.open()
        peer.send(*frames)
        assert peer.finish(stream).reset == code
        assert read_answer(peer.finish(peer.ask(write_image()))).predictions
    assert served.classifier.held_bytes == 0


def test_data_after_the_end_of_a_request_ends_the_stream(served: Served) -> None:
    served.classifier.on_classify = wait
    with connect(served) as peer:
        stream = peer.ask(write_image())
        peer.send(write_frame(DATA, b"more", 0, stream))
        assert peer.finish(stream).reset == CLOSED


def test_data_beyond_the_window_ends_the_stream(served: Served) -> None:
    served.classifier.on_classify = wait
    with connect(served) as peer:
        stream = peer.open(STREAM)
        peer.send(
            *[write_frame(DATA, write_item(bytes(90)) * 100, 0, stream)] * 120
        )  # 1.2 MB, nobody takes it
        assert peer.finish(stream).reset == FLOW


async def wait(_: object) -> None:
    """For longer than any test."""
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02",
        PREFACE[:20] + b"nonsense",
        b"PRI * HTTP/1.1\r\n",
    ],
)
def test_another_protocol_is_told_goodbye(served: Served, start: bytes) -> None:
    with connect(served, None) as peer:
        peer.send(start)
        peer.read_all()
        assert peer.goaway == (PROTOCOL, b"this port speaks HTTP/2")


def test_the_settings_come_first(served: Served) -> None:
    with connect(served, write_frame(PING, bytes(8))) as peer:
        peer.read_all()
        assert peer.goaway == (PROTOCOL, b"the preface has no settings")


def test_streams_over_the_limit_are_refused(served: Served) -> None:
    with connect(served) as peer:
        streams = [peer.open() for _ in range(257)]
        assert peer.finish(streams[-1]).reset == REFUSED
        peer.send(write_frame(DATA, write_image(), END_STREAM, streams[0]))
        assert read_answer(peer.finish(streams[0])).predictions


FLOODS = {
    "settings": write_settings(),
    "acknowledged pings": write_frame(PING, bytes(8), 1),
    "priorities": write_frame(PRIORITY, bytes(5), stream=1),
    "empty data": write_frame(DATA, b"", 0, 1),
    "frames nobody knows": write_frame(99, b"x", 0, 0),
}


@pytest.mark.parametrize("name", [name for name in FLOODS if name != "acknowledged pings"])
def test_a_flood_of_frames_that_bring_nothing_is_ended(served: Served, name: str) -> None:
    with connect(served) as peer:
        peer.open()
        with suppress(OSError):
            for _ in range(100):
                peer.send(FLOODS[name] * 1_000)
        peer.read_all()
        assert peer.goaway is None or peer.goaway[0] == CALM  # None: reset before it was read
    check_served(served)


def test_streams_opened_and_reset_as_fast_as_can_be_are_ended(served: Served) -> None:
    with connect(served) as peer:
        block = peer.encode()  # fills the tables
        peer.send(write_frame(HEADERS, block, END_HEADERS, 1))
        block = peer.encode()
        with suppress(OSError):
            for number in range(3, 20_001, 2):
                peer.send(
                    write_frame(HEADERS, block, END_HEADERS, number),
                    write_frame(RST_STREAM, bytes(4), stream=number),
                )
        peer.read_all()
        assert peer.goaway is None or peer.goaway[0] == CALM
    check_served(served)


def test_a_header_block_without_end_is_bounded(served: Served) -> None:
    with connect(served) as peer:
        with suppress(OSError):
            peer.send(write_frame(HEADERS, b"", 0, 1))
            for _ in range(100):
                peer.send(write_frame(CONTINUATION, bytes(1_000), 0, 1))
        peer.read_all()
        assert peer.goaway is None or peer.goaway[0] == CALM


def test_a_peer_that_asks_and_never_reads_costs_no_memory() -> None:
    with run_frontend(log_level="error") as frontend:
        frontend.add_worker(1)
        address = f"127.0.0.1:{frontend.grpc_port}"
        with connect_to(address) as peer:
            peer.finish(peer.ask(write_image()))
            before_kb = read_memory_kb(frontend.child.pid)
            peer.sock.settimeout(1.0)
            with suppress(OSError):  # until nothing is read any more
                for _ in range(200):
                    for _ in range(200):
                        peer.ask(write_image())
            grown_kb = read_memory_kb(frontend.child.pid) - before_kb
        assert grown_kb < 30_000
        with connect_to(address) as peer:
            assert read_answer(peer.finish(peer.ask(write_image()))).predictions


def record_session() -> bytes:
    """What a good client sends: settings, a call in pieces, a padded one, a window, a ping."""
    peer = Peer.__new__(Peer)
    peer._encoder, peer._next = Encoder(), 1
    message = write_image()
    return b"".join(
        [
            PREFACE,
            write_settings(window=100_000, frame=20_000),
            write_window(1_000_000),
            write_frame(HEADERS, peer.encode(), END_HEADERS, 1),
            write_frame(DATA, message[:4], 0, 1),
            write_frame(DATA, message[4:], END_STREAM, 1),
            write_frame(HEADERS, b"\x03" + peer.encode(x_request_id="a") + bytes(3), END_HEADERS | PADDED, 3),
            write_frame(DATA, b"\x02" + message + bytes(2), END_STREAM | PADDED, 3),
            write_frame(PING, b"12345678"),
            write_window(10, 3),
            write_frame(HEADERS, peer.encode("/resnet.v1.Classifier/ClassifyStream"), END_HEADERS, 5),
            write_frame(RST_STREAM, bytes(3) + b"\x08", stream=5),
        ]
    )


def test_a_session_with_any_bytes_changed_harms_nobody(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    source, good = random.Random(7), record_session()
    for _ in range(300):
        broken = bytearray(good)
        for _ in range(source.randrange(1, 6)):
            broken[source.randrange(24, len(broken))] = source.randrange(256)
        cut = source.randrange(24, len(broken) + 1)
        with connect(served, None) as peer, suppress(OSError):
            peer.send(bytes(broken[:cut]))
    check_served(served)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    ends = time.monotonic() + 20
    while served.classifier.held_bytes:
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_random_bytes_after_the_preface_harm_nobody(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    source = random.Random(11)
    for _ in range(200):
        with connect(served, write_settings()) as peer, suppress(OSError):
            peer.send(source.randbytes(source.randrange(1, 300)))
    check_served(served)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.fixture
def hurried(tmp_path: Path) -> Iterator[Served]:
    with serve_rpc(tmp_path, body_timeout_s=1.0, header_timeout_s=1.0, request_timeout_s=2.0) as served:
        yield served


@pytest.mark.parametrize("part", ["a message", "headers", "a frame's head"])
def test_bytes_that_drip_are_cut(hurried: Served, part: str) -> None:
    with connect(hurried) as peer:
        if part == "a message":
            stream = peer.open()
            dripped = write_frame(DATA, write_image(bytes(1_000)), END_STREAM, stream)
            peer.send(dripped[:9])
            dripped = dripped[9:]
        elif part == "headers":
            dripped = write_frame(HEADERS, peer.encode(x_long="a" * 900), END_HEADERS, 1)
        else:
            dripped = write_frame(PING, bytes(8)) * 20
        began = time.monotonic()
        peer.sock.settimeout(0.15)
        is_cut = False
        for byte in dripped:
            try:
                peer.sock.sendall(bytes([byte]))
                told = peer.sock.recv(4_096)
            except TimeoutError:
                continue
            except OSError:
                is_cut = True
                break
            if not told or b"grpc-status" in told or b"without its end" in told or b"too_many_pings" in told:
                is_cut = True
                break
        assert is_cut
        assert time.monotonic() - began < 15
