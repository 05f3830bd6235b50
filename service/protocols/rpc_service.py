"""What a gRPC service is to the gRPC port: a name and a way to be added. One module has one RPC_SERVICE."""

from collections.abc import Callable
from dataclasses import dataclass

import grpc.aio

from service.protocols.base import ProtocolContext
from service.protocols.rpc_calls import Calls

RpcServer = grpc.aio.Server


@dataclass(frozen=True, slots=True)
class RpcService:
    """`name` is the service's full name; `add` registers its servicer."""

    name: str
    add: Callable[[ProtocolContext, Calls, RpcServer], None]
