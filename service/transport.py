"""Carries messages between processes over Unix sockets that only they can reach: no names, nothing on disk.

Work goes over stream sockets as frames, u32 header length, u32 payload length (both big-endian), the
header, the payload. Control goes over SOCK_SEQPACKET, one message a packet, with file descriptors beside it.
"""

import array
import socket
import struct
from collections.abc import Iterator

from service.messages import (
    Classify,
    ClassifySlice,
    ControlMessage,
    Replies,
    WorkFrame,
    WorkMessage,
    control_decoder,
    control_encoder,
    work_decoder,
    work_encoder,
)

PREFIX = struct.Struct("!II")
SOCKET_BUFFER_BYTES = 1 << 20
CONTROL_BYTES = 1 << 17  # one packet of the control channel; the kernel's default send buffer is 208 KiB


def make_work_pair() -> tuple[socket.socket, socket.socket]:
    """A connected pair of stream sockets for frames, with room for a typical image in each direction."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in pair:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
    return pair


def encode_frame(message: WorkFrame, payload: bytes = b"") -> bytes:
    """One frame, ready to send; a large payload is better sent as `encode_head` and itself."""
    return encode_head(message, len(payload)) + payload


def encode_head(message: WorkFrame, payload_bytes: int) -> bytes:
    """Prefix and header of a frame whose payload of that many bytes is sent right after it."""
    header = work_encoder.encode(message)
    return PREFIX.pack(len(header), payload_bytes) + header


class FrameReader:
    """Turns a stream of bytes into frames. One per connection and direction."""

    def __init__(self) -> None:
        self._rest = bytearray()  # the beginning of a frame
        self._wants = 0  # the least that completes it, or its prefix

    def feed(self, data: bytes) -> Iterator[tuple[WorkMessage, bytes]]:
        """Take bytes as they came; yields every frame that is now complete as (message, payload).

        A frame that stands for several messages is yielded as those.
        """
        source: bytes | bytearray = data
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wants:  # a large frame comes in many pieces
                return
            source, self._rest = self._rest, bytearray()
        view, start, size_bytes = memoryview(source), 0, len(source)
        self._wants = PREFIX.size
        while size_bytes - start >= PREFIX.size:
            header_bytes, payload_bytes = PREFIX.unpack_from(source, start)
            header_at = start + PREFIX.size
            payload_at = header_at + header_bytes
            end = payload_at + payload_bytes
            if size_bytes < end:
                self._wants = end - start
                break
            message = work_decoder.decode(view[header_at:payload_at])
            payload = bytes(view[payload_at:end])
            start = end
            if isinstance(message, ClassifySlice):
                yield from _take_apart(message, payload)
            elif isinstance(message, Replies):
                yield from [(answer, b"") for answer in message.answers]
            else:
                yield message, payload
        if start < size_bytes:
            self._rest += view[start:]


def _take_apart(slice: ClassifySlice, payload: bytes) -> Iterator[tuple[WorkMessage, bytes]]:
    start = 0
    for number, (name, size_bytes) in enumerate(zip(slice.names, slice.sizes, strict=True)):
        image = payload[start : start + size_bytes]
        start += size_bytes
        yield Classify(slice.first + number, name, slice.deadline, slice.options), image


class ControlChannel:
    """One end of the line between the supervisor and a child."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    @staticmethod
    def make_pair() -> tuple["ControlChannel", "ControlChannel"]:
        """The supervisor's end and the child's."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return ControlChannel(ours), ControlChannel(theirs)

    @staticmethod
    def from_fd(fd: int) -> "ControlChannel":
        """The channel a child inherited as file descriptor `fd`."""
        return ControlChannel(socket.socket(fileno=fd))

    def fileno(self) -> int:
        """For selectors and pass_fds."""
        return self._socket.fileno()

    def set_blocking(self, is_blocking: bool) -> None:
        """Blocking by default; asyncio users switch it off."""
        self._socket.setblocking(is_blocking)

    def send(self, message: ControlMessage, *fds: int) -> None:
        """Send one message, and duplicates of `fds`; raises OSError when the other end is gone."""
        data = control_encoder.encode(message)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._socket.sendmsg([data], ancillary)

    def receive(self) -> tuple[ControlMessage, list[int]] | None:
        """The next message and the file descriptors that came with it; None when the other end is closed."""
        data, fds, _, _ = socket.recv_fds(self._socket, CONTROL_BYTES, 8)
        if not data:
            return None
        return control_decoder.decode(data), fds

    def close(self) -> None:
        """Close this end; the other end's `receive` then answers None."""
        self._socket.close()
