"""Read what the repository must know of an ONNX file: its inputs, outputs and where its constants lie.

A walker over the protobuf wire format, because the service needs neither the onnx package (18 MB) nor its
import time to see that a graph reads no file but its own weights. It is strict: whatever could hide a
tensor from it (nested graphs, functions, sparse constants) is refused. Field numbers: onnx.proto, IR 8.
"""

from collections.abc import Iterator
from dataclasses import dataclass

INLINE = 0
EXTERNAL = 1

# ModelProto, GraphProto, NodeProto, AttributeProto, TensorProto, ValueInfoProto: the fields we look into.
_MODEL_GRAPH, _MODEL_FUNCTIONS, _MODEL_TRAINING = 7, 25, 20
_GRAPH_NODE, _GRAPH_INITIALISER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_SPARSE = 1, 5, 11, 12, 15
_NODE_OP_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_NESTED = {5: "t", 6: "g", 10: "tensors", 11: "graphs", 22: "sparse_tensor", 23: "sparse_tensors"}
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 2, 8, 13, 14
_VALUE_NAME = 1

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class BadGraph(ValueError):
    """The file is not a graph we run; the message names the first thing that is wrong."""


@dataclass(frozen=True, slots=True)
class Initialiser:
    """A constant of the graph. `external` holds its keys (location, offset, length), empty when inline."""

    name: str
    data_type: int  # onnx.TensorProto.DataType, 1 is float32
    shape: tuple[int, ...]
    external: dict[str, str]


@dataclass(frozen=True, slots=True)
class Graph:
    """The outside of a graph: names of inputs and outputs, its constants, the operators it uses."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    initialisers: tuple[Initialiser, ...]
    operators: frozenset[str]


def parse_graph(data: bytes) -> Graph:
    """Parse an ONNX file; raises BadGraph if it is not one, or hides tensors where we do not look."""
    try:
        return _parse_model(memoryview(data))
    except (IndexError, UnicodeDecodeError, TypeError) as err:
        raise BadGraph("the file is not an ONNX graph") from err


def _parse_model(data: memoryview) -> Graph:
    graphs: list[memoryview] = []
    for number, value in _fields(data):
        if number in (_MODEL_FUNCTIONS, _MODEL_TRAINING):
            raise BadGraph("the model has functions or training graphs; only a plain graph is accepted")
        if number == _MODEL_GRAPH:
            graphs.append(_bytes(value))
    if len(graphs) != 1:
        raise BadGraph(f"the model has {len(graphs)} graphs, expected one")
    return _parse_graph(graphs[0])


def _parse_graph(data: memoryview) -> Graph:
    inputs, outputs, initialisers, operators = [], [], [], set()
    for number, value in _fields(data):
        if number == _GRAPH_SPARSE:
            raise BadGraph("the graph has sparse constants; only dense ones are accepted")
        if number == _GRAPH_NODE:
            operators.add(_parse_node(_bytes(value)))
        elif number == _GRAPH_INITIALISER:
            initialisers.append(_parse_tensor(_bytes(value)))
        elif number == _GRAPH_INPUT:
            inputs.append(_text(_bytes(value), _VALUE_NAME))
        elif number == _GRAPH_OUTPUT:
            outputs.append(_text(_bytes(value), _VALUE_NAME))
    return Graph(tuple(inputs), tuple(outputs), tuple(initialisers), frozenset(operators))


def _parse_node(data: memoryview) -> str:
    for number, value in _fields(data):
        if number != _NODE_ATTRIBUTE:
            continue
        for inner, _ in _fields(_bytes(value)):
            if inner in _ATTRIBUTE_NESTED:
                raise BadGraph(
                    f"a node has an attribute of kind {_ATTRIBUTE_NESTED[inner]}; none is accepted"
                )
    domain = _text(data, _NODE_DOMAIN)
    return f"{domain}.{_text(data, _NODE_OP_TYPE)}" if domain else _text(data, _NODE_OP_TYPE)


def _parse_tensor(data: memoryview) -> Initialiser:
    shape: list[int] = []
    external: dict[str, str] = {}
    location, data_type = INLINE, 0
    for number, value in _fields(data):
        if number == _TENSOR_DIMS:
            shape.extend([value] if isinstance(value, int) else _varints(value))
        elif number == _TENSOR_TYPE:
            data_type = _int(value)
        elif number == _TENSOR_LOCATION:
            location = _int(value)
        elif number == _TENSOR_EXTERNAL:
            key = _text(_bytes(value), 1)
            if key in external:
                raise BadGraph(f"a constant says {key!r} twice")
            external[key] = _text(_bytes(value), 2)
    name = _text(data, _TENSOR_NAME)
    if bool(external) != (location == EXTERNAL):
        raise BadGraph(f"constant {name!r} is neither inside the graph nor properly outside it")
    return Initialiser(name, data_type, tuple(shape), external)


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The (field number, value) pairs of one protobuf message, in order; nothing is copied."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        kind = key & 7
        if kind == _VARINT:
            value, position = _varint(data, position)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, position = _varint(data, position)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise BadGraph("the file is not an ONNX graph")
        if position + size > len(data):
            raise BadGraph("the graph ends in the middle of a field")
        yield key >> 3, data[position : position + size]
        position += size


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise BadGraph("the file is not an ONNX graph")


def _varints(data: memoryview) -> Iterator[int]:
    position = 0
    while position < len(data):
        value, position = _varint(data, position)
        yield value


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise BadGraph("the file is not an ONNX graph")
    return value


def _int(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise BadGraph("the file is not an ONNX graph")
    return value


def _text(data: memoryview, field: int) -> str:
    """The last string field of that number, as protobuf has it; empty when there is none."""
    found = b""
    for number, value in _fields(data):
        if number == field:
            found = bytes(_bytes(value))
    return found.decode()
