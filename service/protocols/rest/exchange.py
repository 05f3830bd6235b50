"""One HTTP request as the handlers of this room see it: its headers, parsed once, and its ending."""

import time
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from service.access.gate import read_credential
from service.errors import BadRequest
from service.protocols.options import parse_request_id

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]

CLASSIFY_PATH = "/v1/classify"

Headers = list[tuple[bytes, bytes]]
Answer = tuple[int, Headers, bytes]


class Connection(Protocol):
    """What a handler may ask of the connection its request came on; connection.HttpConnection is one."""

    async def answer(self, scope: Scope, answer: Answer) -> None:
        """Send a whole answer to the request of `scope` with one system call."""
        ...

    def cancel_when_lost(self, task: "Cancellable | None") -> None:
        """Cancel `task` when the caller goes away; None forgets it."""
        ...

    def is_waiting(self, scope: Scope) -> bool:
        """The caller of `scope` is there, and no answer has begun."""
        ...

    def abort(self) -> None:
        """Break the connection off in the middle of an answer."""
        ...

    def limit_body(self, deadline: float) -> None:
        """Cut the body off at time.monotonic() `deadline`."""
        ...

    @property
    def is_late(self) -> bool:
        """The body was cut off: silent too long, or past its deadline."""
        ...


class Cancellable(Protocol):
    """A task."""

    def cancel(self) -> bool:
        """Ask it to end."""
        ...


@dataclass(slots=True)
class Exchange:
    """A request's identity and what its log line and its count need. `model` is set once it is known,
    `caller` (the id of a key, never the key) where keys are on.
    `is_ill_addressed`: not one Host header, as RFC 9112 asks (section 3.2)."""

    method: str
    path: str
    request_id: str
    headers: dict[bytes, bytes]
    began: float = field(default_factory=time.monotonic)
    model: str = ""
    caller: str = ""
    is_ill_addressed: bool = False

    @staticmethod
    def begin(scope: Scope) -> "Exchange":
        """The exchange of an ASGI scope."""
        rows: Headers = scope["headers"]
        return Exchange.open(
            scope["method"], scope["path"], rows, dict(reversed(rows)), scope["http_version"]
        )

    @staticmethod
    def open(
        method: str, path: str, rows: Headers, headers: dict[bytes, bytes], http_version: str
    ) -> "Exchange":
        """From the headers as they came, and the same by name: of a repeated one the first counts."""
        hosts = 1 if b"host" in headers else int(http_version != "1.1")
        if len(headers) != len(rows) and hosts:  # some header is repeated
            hosts = max(1, sum(name == b"host" for name, _ in rows))
        request_id = parse_request_id(headers.get(b"x-request-id"))
        return Exchange(method, path, request_id, headers, is_ill_addressed=hosts != 1)

    def text(self, name: bytes) -> str | None:
        """A header's value as text, None where it is absent."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def credential(self) -> str | None:
        """The API key that the caller sent, None where there is none."""
        return read_credential(self.text(b"authorization"), self.text(b"x-api-key"))

    def content_length(self) -> int | None:
        """The size of the body as declared; raises BadRequest."""
        value = self.headers.get(b"content-length")
        if value is None:
            return None
        if not value.isdigit() or len(value) > 15:
            raise BadRequest("Content-Length is not a number of bytes", "Content-Length")
        return int(value)
