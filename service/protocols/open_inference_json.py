"""Infer requests and answers of the Open Inference Protocol over HTTP: JSON, then raw tensors if any.

`Inference-Header-Content-Length` says where the JSON ends; 0 says that the whole body is one bare image.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from service.errors import BadRequest
from service.protocols.open_inference import (
    InferAnswer,
    Parameter,
    check_outputs,
    read_classification,
    refuse_shared_memory,
)
from service.protocols.open_inference_tensors import (
    OUTPUT,
    OutputAsked,
    check_input,
    read_json_data,
    split_raw,
)

HEADER_LENGTH = "Inference-Header-Content-Length"


# What may be left out may be null: some clients write every field they know.
class _Input(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = None
    data: Any = None


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _Infer(msgspec.Struct):
    inputs: list[_Input]
    id: str | None = None
    parameters: dict[str, Parameter | None] | None = None
    outputs: list[_Output] | None = None


@dataclass(frozen=True, slots=True)
class InferBody:
    """A request's body, read."""

    images: list[bytes]
    id: str = ""
    output: OutputAsked = OutputAsked()
    parameters: dict[str, Parameter] = field(default_factory=dict)


class _Index(msgspec.Struct):
    ready: bool | None = None


_decoder = msgspec.json.Decoder(_Infer)
_index_decoder = msgspec.json.Decoder(_Index | None)


def parse_body(body: bytes, header_bytes: int | None) -> InferBody:
    """Read an inflated body; `header_bytes`: Inference-Header-Content-Length, None where it is absent.

    Raises BadRequest.
    """
    if header_bytes == 0:
        return InferBody([body], output=OutputAsked(is_binary=True))
    if header_bytes is not None and header_bytes > len(body):
        raise BadRequest(f"{HEADER_LENGTH} is more than the body", HEADER_LENGTH)
    try:
        asked = _decoder.decode(body if header_bytes is None else memoryview(body)[:header_bytes])
    except (msgspec.DecodeError, RecursionError) as err:
        raise BadRequest(f"the request is not an inference request: {_clip(err)}") from err
    raw = b"" if header_bytes is None else body[header_bytes:]
    parameters = {name: value for name, value in (asked.parameters or {}).items() if value is not None}
    is_binary = _read_boolean("binary_data_output", parameters.get("binary_data_output", False))
    output = _read_output(asked.outputs or [], is_binary)
    return InferBody(_read_images(asked.inputs, raw), asked.id or "", output, parameters)


def parse_index(body: bytes) -> bool:
    """Whether only what is ready is asked for, by the body of a repository index; raises BadRequest."""
    try:
        asked = _index_decoder.decode(body.strip() or b"{}")
    except (msgspec.DecodeError, RecursionError) as err:
        raise BadRequest(f"the request is not an index request: {_clip(err)}") from err
    return asked is not None and asked.ready is True


def encode_answer(answer: InferAnswer, call_id: str, *, is_binary: bool) -> tuple[bytes, int | None]:
    """The body, and the length of its JSON where raw tensors follow it."""
    output = answer.output
    tensor: dict[str, Any] = {"name": OUTPUT, "datatype": output.datatype, "shape": output.shape}
    told: dict[str, Any] = {
        "model_name": answer.model.name,
        "model_version": str(answer.model.version),
        "parameters": answer.parameters,
        "outputs": [tensor],
    }
    if call_id:
        told["id"] = call_id
    if not is_binary:
        tensor["data"] = output.values
        return msgspec.json.encode(told), None
    raw = output.to_bytes()
    tensor["parameters"] = {"binary_data_size": len(raw)}
    header = msgspec.json.encode(told)
    return header + raw, len(header)


def _read_images(inputs: list[_Input], raw: bytes) -> list[bytes]:
    if len(inputs) != 1:
        raise BadRequest(f"the request has {len(inputs)} inputs, it must have one", "inputs")
    [one] = inputs
    shape = tuple(one.shape)
    check_input(one.name, one.datatype, shape)
    parameters = one.parameters or {}
    refuse_shared_memory(parameters)
    size = parameters.get("binary_data_size")
    if size is None:
        if raw:
            raise BadRequest("raw data follow the JSON, but no binary_data_size says so", "inputs")
        return read_json_data(one.datatype, shape, one.data)
    if one.data is not None:
        raise BadRequest("an input has both data and binary_data_size", "data")
    if isinstance(size, bool) or size != len(raw):
        raise BadRequest(f"binary_data_size is not the {len(raw)} bytes that follow", "binary_data_size")
    return split_raw(one.datatype, shape, raw)


def _read_output(outputs: list[_Output], is_binary: bool) -> OutputAsked:
    check_outputs([one.name for one in outputs])
    if not outputs:
        return OutputAsked(is_binary=is_binary)
    parameters = outputs[0].parameters or {}
    refuse_shared_memory(parameters)
    classification = read_classification(parameters.get("classification", 0))
    return OutputAsked(classification, _read_boolean("binary_data", parameters.get("binary_data", is_binary)))


def _read_boolean(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise BadRequest(f"{name} must be true or false", name)
    return value


def _clip(err: Exception) -> str:
    return str(err)[:200]
