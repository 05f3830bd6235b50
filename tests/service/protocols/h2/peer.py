"""A client that writes HTTP/2 frame by frame, right or wrong, and reads what comes back."""

import socket
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field

from hpack import Decoder, Encoder

from service.pb import classifier_pb2 as pb
from tests.service.protocols.faults import Served

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)
ACK = END_STREAM = 1
END_HEADERS, PADDED, HAS_PRIORITY = 4, 8, 32
CLASSIFY = "/resnet.v1.Classifier/Classify"
STREAM = "/resnet.v1.Classifier/ClassifyStream"


@dataclass(frozen=True, slots=True)
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes


@dataclass(slots=True)
class Reply:
    """What came on a stream: headers and trailers as one, the body, and the code of its reset, if any."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    reset: int | None = None

    @property
    def status(self) -> int:
        return int(self.headers["grpc-status"])


def write_frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def write_settings(**values: int) -> bytes:
    """By the names of RFC 9113 section 6.5.2."""
    names = ("table", "push", "streams", "window", "frame", "headers")
    pairs = [struct.pack(">HI", names.index(name) + 1, value) for name, value in values.items()]
    return write_frame(SETTINGS, b"".join(pairs))


def write_window(increment: int, stream: int = 0) -> bytes:
    return write_frame(WINDOW_UPDATE, struct.pack(">I", increment), stream=stream)


def write_message(message: bytes, *, is_compressed: bool = False) -> bytes:
    return bytes([is_compressed]) + len(message).to_bytes(4) + message


def write_image(image: bytes = b"image", **fields: object) -> bytes:
    """A message that asks about an image."""
    return write_message(pb.ClassifyRequest(image=image, **fields).SerializeToString())  # type: ignore[arg-type]


def write_item(image: bytes) -> bytes:
    """A message of a stream."""
    item = pb.ClassifyStreamRequest(request=pb.ClassifyRequest(image=image))
    return write_message(item.SerializeToString())


class Peer:
    """One connection; `settings` None sends nothing of its own accord."""

    def __init__(self, sock: socket.socket, settings: bytes | None) -> None:
        self.sock = sock
        self._file = sock.makefile("rb")
        self._encoder, self._decoder = Encoder(), Decoder()
        self._next = 1
        self.replies: dict[int, Reply] = {}
        self.goaway: tuple[int, bytes] | None = None
        self.pings: list[bytes] = []
        if settings is not None:
            self.send(PREFACE + settings)

    def send(self, *frames: bytes) -> None:
        self.sock.sendall(b"".join(frames))

    def encode(self, path: str = CLASSIFY, **more: str) -> bytes:
        """A request's header block; names in `more` with underscores for hyphens."""
        fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "test", "te": "trailers"}
        fields["content-type"] = "application/grpc"
        fields |= {name.replace("_", "-"): value for name, value in more.items()}
        return self._encoder.encode(list(fields.items()))

    def open(self, path: str = CLASSIFY, **more: str) -> int:
        """Send a request's headers; returns the stream's id."""
        stream, self._next = self._next, self._next + 2
        self.send(write_frame(HEADERS, self.encode(path, **more), END_HEADERS, stream))
        return stream

    def ask(self, data: bytes, path: str = CLASSIFY, **more: str) -> int:
        """A whole request; returns the stream's id."""
        stream = self.open(path, **more)
        self.send(write_frame(DATA, data, END_STREAM, stream))
        return stream

    def read(self) -> Frame | None:
        """The next frame, noted where it belongs; None at the end."""
        try:
            head = self._file.read(9)
        except ConnectionResetError:
            return None
        if len(head) < 9:
            return None
        payload = self._file.read(int.from_bytes(head[:3]))
        frame = Frame(head[3], head[4], int.from_bytes(head[5:]), payload)
        self._note(frame)
        return frame

    def finish(self, stream: int) -> Reply:
        """Read until that stream is ended."""
        while (frame := self.read()) is not None:
            is_end = frame.kind == RST_STREAM or (
                frame.kind in (DATA, HEADERS, CONTINUATION) and frame.flags & END_STREAM
            )
            if frame.stream == stream and is_end:
                return self.replies[stream]
        raise EOFError(f"the connection ended first: {self.goaway}")

    def read_all(self) -> None:
        """Until the connection's end."""
        while self.read() is not None:
            continue

    def close(self) -> None:
        self._file.close()

    def _note(self, frame: Frame) -> None:
        if frame.kind == SETTINGS and not frame.flags & ACK:
            with suppress(OSError):  # it was closed under us
                self.send(write_frame(SETTINGS, flags=ACK))
        elif frame.kind == GOAWAY:
            self.goaway = (int.from_bytes(frame.payload[4:8]), frame.payload[8:])
        elif frame.kind == PING:
            self.pings.append(frame.payload)
        elif frame.stream and frame.kind != WINDOW_UPDATE:
            reply = self.replies.setdefault(frame.stream, Reply())
            if frame.kind == HEADERS:
                found = self._decoder.decode(frame.payload)
                reply.headers |= {str(name): str(value) for name, value in found}
            elif frame.kind == DATA:
                reply.body += frame.payload
            elif frame.kind == RST_STREAM:
                reply.reset = int.from_bytes(frame.payload)


def connect(served: Served, settings: bytes | None = b"") -> AbstractContextManager[Peer]:
    """See connect_to."""
    return connect_to(served.address, settings)


@contextmanager
def connect_to(address: str, settings: bytes | None = b"") -> Iterator[Peer]:
    """A connection; `settings`: frames after the preface, a plain client's if empty, None: not even that."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), 60) as sock:
        peer = Peer(sock, write_settings() if settings == b"" else settings)
        try:
            yield peer
        finally:
            peer.close()


def read_answer(reply: Reply) -> pb.ClassifyResponse:
    """The one message of a body."""
    assert reply.body[0] == 0
    assert int.from_bytes(reply.body[1:5]) == len(reply.body) - 5
    return pb.ClassifyResponse.FromString(reply.body[5:])
