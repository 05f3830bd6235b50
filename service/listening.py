"""The sockets the service listens on: bound once by the supervisor, before any child exists."""

import ctypes
import errno
import select
import socket
import struct
import sys
from dataclasses import dataclass

from service.settings import BadSettings, Settings

BACKLOG = 2_048
# linux/filter.h: instructions (code, jump if true, jump if false, constant) of a program that looks at the
# flags of a TCP header (RFC 9293, section 3.1; byte 13) and drops what is SYN without ACK.
SO_ATTACH_FILTER = 26
DROP_NEW_CONNECTIONS = (
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # only SYN: the next instruction; otherwise the one after it
    (0x06, 0, 0, 0),  # keep nothing of this packet
    (0x06, 0, 0, 0xFFFFFFFF),  # keep all of it
)


@dataclass(frozen=True, slots=True)
class Listeners:
    """They listen and are shared by the frontends; `admin` is None where that port is closed."""

    http: socket.socket
    grpc: socket.socket
    admin: socket.socket | None

    def list_fds(self) -> list[int]:
        """In the order in which a frontend receives them; without `admin` where that is closed."""
        return [sock.fileno() for sock in self._list()]

    def describe(self) -> dict[str, object]:
        """Where callers find us, for the log."""
        named = zip(("http", "grpc", "admin"), self._list(), strict=False)
        return {name: "{}:{}".format(*sock.getsockname()[:2]) for name, sock in named}

    def close(self) -> None:
        """Stop listening in this process; children hold their own duplicates."""
        for sock in self._list():
            sock.close()

    def _list(self) -> list[socket.socket]:
        return [self.http, self.grpc, *([self.admin] if self.admin else [])]


def open_listeners(settings: Settings) -> Listeners:
    """Bind every port; raises BadSettings naming the setting whose address cannot be had."""
    http = _bind("SERVE_HTTP_PORT", settings.host, settings.http_port)
    grpc = _bind("SERVE_GRPC_PORT", settings.host, settings.grpc_port)
    # With certificates asked of callers it is where probes, which have none, find /livez and /readyz.
    is_admin_open = bool(settings.admin_token or settings.api_keys or settings.tls_client_ca)
    admin = _bind("SERVE_ADMIN_PORT", "127.0.0.1", settings.admin_port) if is_admin_open else None
    http.listen(BACKLOG)
    grpc.listen(BACKLOG)
    if admin is not None:
        admin.listen(16)
    return Listeners(http, grpc, admin)


def turn_away(sock: socket.socket) -> None:
    """From now on no connection begins on the listening `sock`; those that have can still be accepted.

    Closing a listening socket resets what waits in its queue. With their first packets dropped, callers try
    another address, or ask again and find the port closed; nobody has sent a request that is lost. Where the
    system has no such filter nothing happens.
    """
    if sys.platform != "linux":
        return
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in DROP_NEW_CONNECTIONS)
    held = ctypes.create_string_buffer(program)
    header = struct.pack("HP", len(DROP_NEW_CONNECTIONS), ctypes.addressof(held))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, header)


def is_readable(fd: int) -> bool:
    """There is something to accept or to read on `fd` now."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _bind(setting: str, host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as err:
        sock.close()
        raise BadSettings(f"{setting}={port} on {host}: {_explain(err, setting)}") from err
    return sock


def _explain(err: OSError, setting: str) -> str:
    if err.errno == errno.EADDRINUSE:
        return f"another program is using that port; stop it, or choose another with {setting}"
    if err.errno == errno.EACCES:
        return "only root may listen on ports below 1024; choose a higher one"
    return "this machine has no such address; SERVE_HOST=0.0.0.0 listens on every interface"
