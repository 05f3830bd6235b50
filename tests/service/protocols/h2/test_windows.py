"""Flow control both ways, frames of every size, and what a peer's settings change."""

import asyncio
import gzip
import zlib
from pathlib import Path

import pytest

from service.errors import BrokenImage
from service.types import ClassifyRequest
from tests.service.protocols.faults import BULK, Served, serve_rpc
from tests.service.protocols.h2.peer import (
    CLASSIFY,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    STREAM,
    connect,
    read_answer,
    write_frame,
    write_image,
    write_item,
    write_message,
    write_settings,
    write_window,
)
from tests.service.protocols.telling import settle, wait_for


def test_an_answer_larger_than_the_window_comes_as_it_widens(served: Served) -> None:
    with connect(served, write_settings(window=10)) as peer:
        stream = peer.ask(write_image(logits=True))
        sizes = []
        while (frame := peer.read()) is not None:
            if frame.kind == DATA:
                sizes.append(len(frame.payload))
                peer.send(write_window(1_000, stream))
            if frame.kind == HEADERS and frame.flags & END_STREAM:
                break
        assert sizes[0] == 10
        assert max(sizes) <= 1_000
        assert len(read_answer(peer.replies[stream]).logits) == len(BULK)
        assert peer.replies[stream].status == 0


def test_the_connections_window_holds_for_all_streams(served: Served) -> None:
    with connect(served, write_settings(window=1 << 20)) as peer:
        streams = [peer.ask(write_image(logits=True)) for _ in range(20)]  # 8 kB each, 65,535 bytes allowed
        wait_for(lambda: len(served.classifier.asked) == 20)
        peer.sock.settimeout(1.0)
        try:
            while True:
                peer.read()
        except TimeoutError:
            pass
        assert sum(len(reply.body) for reply in peer.replies.values()) == 65_535
    with connect(served, write_settings(window=1 << 20) + write_window(1 << 20)) as peer:
        streams = [peer.ask(write_image(logits=True)) for _ in range(20)]
        assert all(len(read_answer(peer.finish(stream)).logits) == len(BULK) for stream in streams)


def test_a_window_that_shrinks_below_nothing_is_waited_out(served: Served) -> None:
    async def wait(_: ClassifyRequest) -> None:
        await asyncio.sleep(0.3)

    served.classifier.on_classify = wait
    with connect(served, write_settings(window=1_000)) as peer:
        stream = peer.ask(write_image(logits=True))
        peer.send(write_settings(window=0))
        peer.send(write_window(20_000, stream))
        assert len(read_answer(peer.finish(stream)).logits) == len(BULK)


def test_a_frame_is_no_larger_than_the_peer_takes(served: Served) -> None:
    with connect(served, write_settings(window=1 << 20, frame=16_384) + write_window(1 << 20)) as peer:
        stream = peer.ask(write_image(logits=True, map=False))
        while (frame := peer.read()) is not None:
            assert len(frame.payload) <= 16_384
            if frame.kind == HEADERS and frame.flags & END_STREAM:
                break
        assert peer.replies[stream].status == 0


def test_a_reader_who_takes_nothing_for_long_is_given_up(tmp_path: Path) -> None:
    closed = write_settings(window=0)
    with serve_rpc(tmp_path, keepalive_timeout_s=1.0) as served, connect(served, closed) as peer:
        assert peer.finish(peer.ask(write_image())).reset == 8
        peer.send(write_settings(window=1 << 16))  # the connection lives on
        assert peer.finish(peer.ask(write_image())).status == 0


@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_message_in_the_smallest_pieces_is_read(served: Served, size: int) -> None:
    with connect(served) as peer:
        stream, message = peer.open(), write_image(bytes(range(100)))
        pieces = [message[at : at + size] for at in range(0, len(message), size)]
        peer.send(*[write_frame(DATA, piece, 0, stream) for piece in pieces[:-1]])
        peer.send(write_frame(DATA, pieces[-1], END_STREAM, stream))
        assert read_answer(peer.finish(stream)).predictions
    assert served.classifier.asked[0].image == bytes(range(100))


def test_bytes_one_by_one_are_a_session_like_any(served: Served) -> None:
    with connect(served) as peer:
        block = peer.encode(x_request_id="drop")
        frames = write_frame(HEADERS, block, END_HEADERS, 1) + write_frame(DATA, write_image(), END_STREAM, 1)
        for byte in frames:
            peer.send(bytes([byte]))
        assert read_answer(peer.finish(1)).request_id == "drop"


def test_padding_and_priorities_are_read_over(served: Served) -> None:
    with connect(served) as peer:
        block = b"\x07" + bytes(4) + b"\x10" + peer.encode() + bytes(7)
        peer.send(write_frame(HEADERS, block, END_HEADERS | PADDED | 32, 1))
        peer.send(write_frame(DATA, b"\xff" + write_image() + bytes(255), END_STREAM | PADDED, 1))
        assert read_answer(peer.finish(1)).predictions


def test_a_request_may_end_with_trailers(served: Served) -> None:
    with connect(served) as peer:
        stream = peer.open()
        peer.send(write_frame(DATA, write_image(), 0, stream))
        peer.send(write_frame(HEADERS, b"\0\x01x\x01y", END_HEADERS | END_STREAM, stream))
        assert read_answer(peer.finish(stream)).predictions


def test_a_large_upload_is_let_in_as_it_is_read(tmp_path: Path) -> None:
    with serve_rpc(tmp_path, max_image_bytes=8_000_000) as served, connect(served) as peer:
        stream, message = peer.open(), write_image(bytes(7_000_000))
        allowed, at = 1 << 20, 0
        while at < len(message):
            size = min(1 << 14, allowed, len(message) - at)
            if not size:
                frame = peer.read()
                assert frame is not None
                if frame.kind == 8 and frame.stream == stream:
                    allowed += int.from_bytes(frame.payload)
                continue
            is_last = at + size == len(message)
            peer.send(write_frame(DATA, message[at : at + size], END_STREAM if is_last else 0, stream))
            allowed, at = allowed - size, at + size
        assert read_answer(peer.finish(stream)).predictions
        assert len(served.classifier.asked[0].image) == 7_000_000
        assert served.classifier.held_bytes == 0


def test_a_stream_whose_images_wait_stops_its_sender(served: Served) -> None:
    async def wait(_: ClassifyRequest) -> None:
        await asyncio.sleep(60)

    served.classifier.on_classify = wait
    with connect(served) as peer:
        stream = peer.open(STREAM)
        peer.send(*[write_frame(DATA, write_item(bytes(90)) * 10, 0, stream)] * 900)
        assert settle(lambda: len(served.classifier.asked)) == 64  # the window of the stream's answers
        credited = 0
        peer.sock.settimeout(1.0)
        try:
            while (frame := peer.read()) is not None:
                if frame.kind == 8 and frame.stream == stream:
                    credited += int.from_bytes(frame.payload)
        except TimeoutError:
            pass
        assert credited == 0  # what it sent is within the first window, and most of it not taken


def test_a_client_without_a_table_is_told_that_ours_is_empty(served: Served) -> None:
    with connect(served, write_settings(table=0)) as peer:
        peer._decoder.max_allowed_table_size = 0  # what a strict client holds an encoder to
        assert read_answer(peer.finish(peer.ask(write_image()))).predictions
        assert read_answer(peer.finish(peer.ask(write_image()))).predictions


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)], ids=["gzip", "deflate"]
)
def test_compressed_messages_are_inflated(served: Served, encoding: str, compress: object) -> None:
    assert callable(compress)
    message = write_image(bytes(50_000))[5:]
    with connect(served) as peer:
        sent = write_message(compress(message), is_compressed=True)
        assert read_answer(peer.finish(peer.ask(sent, grpc_encoding=encoding))).predictions
        for broken in (compress(message)[:-9], b"nonsense"):
            reply = peer.finish(peer.ask(write_message(broken, is_compressed=True), grpc_encoding=encoding))
            assert reply.status == 3
        bomb = write_message(compress(bytes(100_000_000)), is_compressed=True)
        assert peer.finish(peer.ask(bomb, grpc_encoding=encoding)).status == 8
    assert served.classifier.held_bytes == 0


@pytest.mark.parametrize(
    ("sent", "more", "status"),
    [
        pytest.param(b"", {}, 3, id="no message"),
        pytest.param(b"\0\0", {}, 3, id="half a prefix"),
        pytest.param(write_image()[:-2], {}, 3, id="half a message"),
        pytest.param(write_image() * 2, {}, 3, id="two messages"),
        pytest.param(write_message(b"", is_compressed=True), {}, 3, id="compressed, and not said how"),
        pytest.param(write_image(), {"grpc_encoding": "br"}, 12, id="an encoding nobody has"),
        pytest.param(b"\0\xff\xff\xff\xff", {}, 8, id="a message of gigabytes"),
        pytest.param(write_image(), {"path": "/resnet.v1.Classifier/Nope"}, 12, id="no such method"),
        pytest.param(write_image(), {"path": ""}, 12, id="no method"),
    ],
)
def test_a_call_that_is_wrong_ends_with_its_status(
    served: Served, sent: bytes, more: dict[str, str], status: int
) -> None:
    path = more.get("path", CLASSIFY)
    fields = {name: value for name, value in more.items() if name != "path"}
    with connect(served) as peer:
        assert peer.finish(peer.ask(sent, path, **fields)).status == status
        assert read_answer(peer.finish(peer.ask(write_image()))).predictions
    assert served.classifier.held_bytes == 0


@pytest.mark.parametrize("more", [{"content_type": "text/plain"}, {":method": "GET"}])
def test_what_is_no_call_is_415(served: Served, more: dict[str, str]) -> None:
    with connect(served) as peer:
        assert peer.finish(peer.ask(b"x", **more)).headers[":status"] == "415"


def test_names_in_capitals_are_no_headers(served: Served) -> None:
    with connect(served) as peer:
        peer.send(write_frame(HEADERS, peer.encode() + b"\0\x01X\x01y", END_HEADERS, 1))
        assert peer.finish(1).headers[":status"] == "415"


def test_a_message_in_any_language_is_told_in_ascii(served: Served) -> None:
    async def fail(_: ClassifyRequest) -> None:
        raise BrokenImage("100 % déjà vu \n")

    served.classifier.on_classify = fail
    with connect(served) as peer:
        reply = peer.finish(peer.ask(write_image()))
    assert reply.headers["grpc-message"] == "100 %25 d%C3%A9j%C3%A0 vu %0A"
