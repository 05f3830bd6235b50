"""The methods of a gRPC port by their route, as generated code and servicers register them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from service.errors import BadRequest

# What the library's generated code hands over: of its handlers only attributes are read.
LibraryHandler = Any


@dataclass(frozen=True, slots=True)
class Method:
    """`behave` takes a request, or an iterator of them, and a context; it is a coroutine function, or, of a
    method that gives several answers, maybe an asynchronous generator.
    """

    behave: Callable[..., Any]
    takes_stream: bool
    gives_stream: bool
    is_generator: bool
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]

    def read(self, message: bytes) -> Any:
        """The request in a message; raises BadRequest."""
        try:
            return self.decode(message)
        except DecodeError:
            raise BadRequest("the message is not of the type that this method takes") from None


class Methods:
    """What `add_..._to_server` functions take for a server."""

    def __init__(self) -> None:
        self._methods: dict[str, Method] = {}

    def add_generic_rpc_handlers(self, handlers: Sequence[LibraryHandler]) -> None:
        """Nothing: what they answer is registered by name, too."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, LibraryHandler]) -> None:
        """The methods of a service."""
        for name, handler in handlers.items():
            self._methods[f"/{service}/{name}"] = _make_method(handler)

    def find(self, route: str) -> Method | None:
        """The method that is called so; None where there is none."""
        return self._methods.get(route)


def _make_method(handler: LibraryHandler) -> Method:
    kinds = (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
    behave = next(kind for kind in kinds if kind is not None)
    return Method(
        behave,
        handler.request_streaming,
        handler.response_streaming,
        inspect.isasyncgenfunction(behave),
        handler.request_deserializer,
        handler.response_serializer,
    )
