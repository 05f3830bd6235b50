"""What tests of gRPC ask of errors, counts and time."""

import time
from collections.abc import Callable

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.service.protocols.faults import Served


def read_details(error: grpc.RpcError) -> dict[str, object]:
    """The google.rpc details of an error by their message's name."""
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    assert status is not None
    found: dict[str, object] = {}
    for detail in status.details:
        name = detail.type_url.rpartition(".")[2]
        message = getattr(error_details_pb2, name)()
        detail.Unpack(message)
        found[name] = message
    return found


def count_requests(served: Served, route: str, code: str) -> int:
    text = served.metrics.render().decode()
    lines = [line for line in text.splitlines() if f'route="{route}"' in line and f'code="{code}"' in line]
    return sum(int(float(line.rpartition(" ")[2])) for line in lines)


def wait_for(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends, "did not come true within 20 s"
        time.sleep(0.01)


def settle(value: Callable[[], int]) -> int:
    """The value once it has stood still for half a second."""
    last, since = value(), time.monotonic()
    while time.monotonic() - since < 0.5:
        time.sleep(0.05)
        if value() != last:
            last, since = value(), time.monotonic()
    return last
