"""A decoder process: `python -m service.worker.decoder SOCKET_FD MEMORY_BYTES`, run by a worker only.

Takes one image at a time over its socket and answers with pixels or with why there are none. Prefixes are
big-endian: u32 header length and u64 payload length, a header in JSON, the payload.
"""

import resource
import socket
import struct
import sys
from pathlib import Path
from typing import Self

import msgspec

from models.decode import (
    BrokenImage,
    DecodeLimits,
    ImageError,
    TooManyBytes,
    TooManyPixels,
    UnsupportedFormat,
    decode_image,
)
from service.offspring import begin_child

EXIT_MEMORY = 5
PREFIX = struct.Struct("!IQ")
ERRORS = {one.__name__: one for one in (BrokenImage, TooManyBytes, TooManyPixels, UnsupportedFormat)}


class Asked(msgspec.Struct, frozen=True):
    """An image follows, to be decoded within these limits."""

    max_bytes: int
    max_pixels: int


class Unpacked(msgspec.Struct, frozen=True, tag="pixels"):
    """uint8 RGB [height, width, 3] follow; as models.decode.DecodedImage."""

    height: int
    width: int
    format: str
    orientation: int


class Refusal(msgspec.Struct, frozen=True, tag="refusal"):
    """The image cannot be decoded: `error` is the name of a models.decode error."""

    error: str
    message: str

    @classmethod
    def of(cls, error: ImageError) -> Self:
        """What to send of `error`."""
        return cls(type(error).__name__, str(error))

    def to_error(self) -> ImageError:
        """The error as it was raised."""
        return ERRORS[self.error](self.message)


_asked = msgspec.json.Decoder(Asked)
_replies = msgspec.json.Decoder(Unpacked | Refusal)


def send_image(sock: socket.socket, image: bytes, limits: DecodeLimits) -> None:
    """The worker's question; raises OSError, TimeoutError."""
    _send(sock, Asked(limits.max_bytes, limits.max_pixels), memoryview(image))


def receive_reply(sock: socket.socket) -> Unpacked | Refusal:
    """The decoder's answer, up to its pixels; raises ConnectionError where it has died, TimeoutError."""
    header, _ = _receive(sock)
    reply: Unpacked | Refusal = _replies.decode(header)
    return reply


def receive_exactly(sock: socket.socket, into: memoryview) -> None:
    """Fill `into`; raises ConnectionError where the stream ends before."""
    while into:
        count = sock.recv_into(into)
        if not count:
            raise ConnectionError("the other end is gone")
        into = into[count:]


def _receive(sock: socket.socket) -> tuple[bytes, int]:
    prefix = bytearray(PREFIX.size)
    receive_exactly(sock, memoryview(prefix))
    header_bytes, payload_bytes = PREFIX.unpack(prefix)
    header = bytearray(header_bytes)
    receive_exactly(sock, memoryview(header))
    return bytes(header), payload_bytes


def _send(sock: socket.socket, header: msgspec.Struct, payload: memoryview) -> None:
    encoded = msgspec.json.encode(header)
    sock.sendall(PREFIX.pack(len(encoded), payload.nbytes) + encoded)
    sock.sendall(payload)


def _serve(sock: socket.socket) -> None:
    """Until the worker closes its end."""
    while True:
        try:
            header, payload_bytes = _receive(sock)
        except ConnectionError:
            return
        asked = _asked.decode(header)
        data = bytearray(payload_bytes)
        receive_exactly(sock, memoryview(data))
        try:
            image = decode_image(bytes(data), DecodeLimits(asked.max_bytes, asked.max_pixels))
        except ImageError as error:
            _send(sock, Refusal.of(error), memoryview(b""))
            continue
        height, width, _ = image.pixels.shape
        pixels = memoryview(image.pixels.tobytes())
        _send(sock, Unpacked(height, width, image.format, image.orientation), pixels)


def _limit_memory(more_bytes: int) -> None:
    """Allow this process `more_bytes` of address space above what it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> int:
    """The process, to its exit code."""
    begin_child()
    _limit_memory(int(sys.argv[2]))
    try:
        with socket.socket(fileno=int(sys.argv[1])) as sock:
            _serve(sock)
    except MemoryError:
        return EXIT_MEMORY
    return 0


if __name__ == "__main__":
    sys.exit(main())
