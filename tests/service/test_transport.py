"""Frames survive any cutting of the stream; control messages carry file descriptors."""

import os

import pytest

from service.messages import (
    Cancel,
    Classify,
    ClassifySlice,
    Drain,
    Failure,
    FrontendUp,
    Replies,
    Result,
    WorkMessage,
)
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


def test_a_slice_is_the_requests_that_it_stands_for() -> None:
    images = [b"one", b"", b"three"]
    names, sizes = ["a-0", "a-1", "a-2"], [len(image) for image in images]
    frame = encode_frame(ClassifySlice(5, names, sizes, 12.5, REQUEST.options), b"".join(images))
    told = [Classify(5 + n, names[n], 12.5, REQUEST.options) for n in range(3)]
    assert list(FrameReader().feed(frame + encode_frame(Cancel(6)))) == [
        *zip(told, images, strict=True),
        (Cancel(6), b""),
    ]


def test_several_replies_in_a_frame_are_as_many_answers() -> None:
    refused = Failure(1, "broken-image", "it is", 0.5)
    answered = Result(2, [0, 1], [0.75, 0.25], "center", "center", 1, 0.1, 0.2, 0.3, 0.5)
    frame = encode_frame(Replies([refused, answered]))
    assert list(FrameReader().feed(frame)) == [(refused, b""), (answered, b"")]


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
