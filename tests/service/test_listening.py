"""What happens at a port that is about to close."""

import socket
import sys

import pytest

from service.listening import is_readable, turn_away


@pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_connections_begun_before_are_accepted_and_none_after(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listening:
        listening.bind((address, 0))
        listening.listen(8)
        target = listening.getsockname()[:2]
        with socket.create_connection(target, 5) as before:
            turn_away(listening)
            with pytest.raises(TimeoutError):
                socket.create_connection(target, 0.3)
            before.sendall(b"hello")
            assert is_readable(listening.fileno())
            accepted, _ = listening.accept()
            assert not is_readable(listening.fileno())
        with accepted:
            assert accepted.recv(5) == b"hello"
            assert accepted.recv(5) == b""  # its end came through too
