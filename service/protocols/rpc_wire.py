"""gRPC as it is on the wire: what a call's headers say, messages between bytes, statuses as trailers.

The mapping to HTTP/2 is that of gRPC's protocol description (PROTOCOL-HTTP2): length-prefixed messages, the
deadline in grpc-timeout, the status in trailers.
"""

import base64
import binascii
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

import grpc

from service.errors import BadRequest, TooLarge
from service.protocols.h2.headers import STATUS_200, Headers, write_headers

PREFIX_BYTES = 5  # a flag and a length
ENCODINGS = {"gzip": 31, "deflate": 15}  # and the window that zlib is told
MAX_MESSAGE_CHARACTERS = 1_000  # of a status
UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_OPENING = STATUS_200 + write_headers(
    [(b"content-type", b"application/grpc"), (b"grpc-accept-encoding", b"identity,deflate,gzip")]
)
NO_CALL = write_headers([(b":status", b"415"), (b"x-content-type-options", b"nosniff")])

Value = str | bytes
Metadata = tuple[tuple[str, Value], ...]


@dataclass(frozen=True, slots=True)
class CallHead:
    """What the headers of a request say. `fault`: why it is no call at all, "" if it is one.

    `encoding` is that of its messages, "" for none; `timeout_s` None where the caller sets no deadline.
    """

    route: str
    metadata: Metadata = ()
    timeout_s: float | None = None
    encoding: str = ""
    fault: str = ""

    def find(self, key: str) -> str | None:
        """The first value under `key`, of text."""
        for name, value in self.metadata:
            if name == key and isinstance(value, str):
                return value
        return None


def read_head(headers: Headers) -> CallHead:
    """What a list of headers says; never raises."""
    pseudo: dict[bytes, bytes] = {}
    metadata: list[tuple[str, Value]] = []
    for name, value in headers:
        if name[:1] == b":":
            pseudo[name] = value
        elif name != name.lower() or not name:
            return CallHead("", fault="names of headers are in lower case")
        else:
            metadata.append(_read_entry(name.decode("latin-1"), value))
    head = CallHead(pseudo.get(b":path", b"").decode("latin-1"), tuple(metadata))
    if pseudo.get(b":method") != b"POST" or not (head.find("content-type") or "").startswith(
        "application/grpc"
    ):
        return CallHead(head.route, fault="this port answers gRPC calls")
    encoding = head.find("grpc-encoding") or ""
    timeout_s = _read_timeout(head.find("grpc-timeout"))
    return CallHead(head.route, head.metadata, timeout_s, "" if encoding == "identity" else encoding)


class MessageReader:
    """Messages out of a body that comes in pieces: one each time it is whole."""

    __slots__ = ("_chunks", "_head", "_left", "is_compressed", "size_bytes")

    def __init__(self) -> None:
        self._head = b""
        self._chunks: list[bytes] = []
        self._left = 0
        self.is_compressed = False
        self.size_bytes: int | None = None  # of the message that is being read, once it is known

    @property
    def is_amid(self) -> bool:
        """A message has begun and is not whole."""
        return bool(self._head) or self.size_bytes is not None

    def read_prefix(self, chunk: bytes) -> bytes:
        """Take what belongs to a message's prefix; sets `size_bytes` once it is known, returns the rest."""
        if self._head:
            chunk, self._head = self._head + chunk, b""
        if len(chunk) < PREFIX_BYTES:
            self._head = chunk
            return b""
        self.is_compressed = chunk[0] != 0
        self.size_bytes = self._left = int.from_bytes(chunk[1:PREFIX_BYTES])
        return chunk[PREFIX_BYTES:]

    def read_content(self, chunk: bytes) -> tuple[bytes | None, bytes]:
        """The message if it is whole now, and what follows it."""
        taken = chunk[: self._left]
        self._left -= len(taken)
        self._chunks.append(taken)
        if self._left:
            return None, b""
        message = taken if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self.size_bytes = None
        return message, chunk[len(taken) :]


def inflate(message: bytes, encoding: str, limit_bytes: int) -> bytes:
    """A message as it was before `encoding`; raises TooLarge, BadRequest."""
    stream = zlib.decompressobj(ENCODINGS[encoding])
    try:
        whole = stream.decompress(message, limit_bytes + 1)
    except zlib.error:
        raise BadRequest(f"a message that is not {encoding} says that it is") from None
    if len(whole) > limit_bytes:
        raise TooLarge(f"a message has more than {limit_bytes} bytes")
    if not stream.eof:
        raise BadRequest("a compressed message is cut off")
    return whole


def write_message(message: bytes) -> bytes:
    """With its prefix, not compressed."""
    return b"\0" + len(message).to_bytes(4) + message


def write_opening() -> bytes:
    """The header block before messages."""
    return _OPENING


def write_trailers(
    code: grpc.StatusCode, details: str, metadata: Iterable[tuple[str, Value]], *, is_alone: bool
) -> bytes:
    """The header block that ends a call; `is_alone`: nothing was sent before it."""
    number: int = code.value[0]
    fields = [(b"grpc-status", b"%d" % number)]
    if details:
        told = quote(details[:MAX_MESSAGE_CHARACTERS], safe=_PLAIN)
        fields.append((b"grpc-message", told.encode("ascii")))
    fields += [_write_entry(name, value) for name, value in metadata]
    return (_OPENING if is_alone else b"") + write_headers(fields)


# Printable ASCII without the percent sign, as the protocol has it.
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if code != ord("%"))


def _read_entry(name: str, value: bytes) -> tuple[str, Value]:
    if not name.endswith("-bin"):
        return name, value.decode("latin-1")
    try:
        return name, base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error:
        return name, b""


def _write_entry(name: str, value: Value) -> tuple[bytes, bytes]:
    if isinstance(value, bytes):
        return name.encode("latin-1"), base64.b64encode(value).rstrip(b"=")
    return name.encode("latin-1"), value.encode("latin-1", "replace")


def _read_timeout(given: str | None) -> float | None:
    match = _TIMEOUT.fullmatch(given or "")
    return None if match is None else int(match[1]) * UNITS_S[match[2]]
