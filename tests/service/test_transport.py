"""Frames survive any cutting of the stream; control messages carry file descriptors."""

import os

import pytest

from service.messages import Cancel, Classify, Drain, FrontendUp, WorkMessage
from service.transport import ControlChannel, FrameReader, encode_frame, make_work_pair
from service.types import ClassifyOptions

REQUEST = Classify(7, "abc", 12.5, ClassifyOptions(tta="ten_crop", scales=(224, 256)), True)
FRAMES: list[tuple[WorkMessage, bytes]] = [
    (REQUEST, b"\xff\xd8" + bytes(5000)),
    (Cancel(7), b""),
    (REQUEST, b"x"),
]


@pytest.mark.parametrize("piece_bytes", [1, 7, 8, 9, 4096, 1 << 20])
def test_frames_survive_any_cutting_of_the_stream(piece_bytes: int) -> None:
    stream = b"".join(encode_frame(message, payload) for message, payload in FRAMES)
    reader = FrameReader()
    got = [
        frame
        for start in range(0, len(stream), piece_bytes)
        for frame in reader.feed(stream[start : start + piece_bytes])
    ]
    assert got == FRAMES


def test_control_message_carries_a_working_connection() -> None:
    ours, theirs = ControlChannel.make_pair()
    one, other = make_work_pair()
    with one, other:
        ours.send(FrontendUp(3), other.fileno())
    received = theirs.receive()
    assert received is not None
    message, fds = received
    assert message == FrontendUp(3)
    assert len(fds) == 1
    os.close(fds[0])
    ours.close()
    assert theirs.receive() is None
    theirs.close()


def test_channel_can_be_inherited_by_number() -> None:
    ours, theirs = ControlChannel.make_pair()
    inherited = ControlChannel.from_fd(os.dup(theirs.fileno()))
    theirs.close()
    ours.send(Drain())
    assert inherited.receive() == (Drain(), [])
    ours.close()
    inherited.close()
