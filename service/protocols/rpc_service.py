"""What a gRPC service is to the gRPC port: a name and a way to be added. One module has one RPC_SERVICE."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from service.protocols.base import ProtocolContext
from service.protocols.h2.stream import Handler, Stream
from service.protocols.rpc_calls import Calls
from service.protocols.rpc_inbound import CallDesk
from service.protocols.rpc_methods import Methods
from service.protocols.rpc_wire import CallHead

RpcServer = Methods
# The handler of a call to one method, from its stream, its headers and its caller's key.
DirectCall = Callable[[CallDesk, Stream, CallHead, str], Handler]


@dataclass(frozen=True, slots=True)
class RpcService:
    """`name` is the service's full name; `add` registers its servicer.

    `direct`: methods, by route, whose calls are not run as tasks.
    """

    name: str
    add: Callable[[ProtocolContext, Calls, RpcServer], None]
    direct: Mapping[str, DirectCall] = field(default_factory=dict)
