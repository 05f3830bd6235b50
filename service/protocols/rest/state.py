"""What the HTTP connections of one server share."""

import asyncio
import email.utils
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.protocols.rest.connection import HttpConnection

# Beside what an answer says of itself: it is what it says it is, in nobody's frame, and nobody is told of it.
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]
# For answers that are no pages: should a browser show one all the same, nothing in it is run or loaded.
NO_CONTENT = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
HSTS = (b"strict-transport-security", b"max-age=31536000")


class HttpState:
    """`connections` that are open and `tasks` that answer; `default_headers` are those of every answer, and
    `preface` the same as they are sent, with what belongs to answers that are no pages.
    """

    def __init__(self, *, is_secure: bool) -> None:
        self.connections: set[HttpConnection] = set()
        self.tasks: set[asyncio.Task[Any]] = set()
        self._fixed = [*SECURITY_HEADERS, *([HSTS] if is_secure else [])]
        self.preface = b""
        self.set_date()

    def set_date(self) -> None:
        """Called once a second."""
        date = email.utils.formatdate(usegmt=True).encode()
        self.default_headers = [(b"date", date), *self._fixed]
        self.preface = b"".join([b"%b: %b\r\n" % pair for pair in [*self.default_headers, NO_CONTENT]])

    def run(self, task: asyncio.Task[Any]) -> None:
        """Hold `task` until it is done; a drain waits for it."""
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
