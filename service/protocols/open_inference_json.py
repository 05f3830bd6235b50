"""Infer requests and answers of the Open Inference Protocol over HTTP: JSON, then raw tensors if any.

`Inference-Header-Content-Length` says where the JSON ends; 0 says that the whole body is one bare image.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from service.errors import BadRequest
from service.protocols.open_inference import InferAnswer, Parameter, check_output, read_classification
from service.protocols.open_inference_tensors import (
    OUTPUT,
    OutputAsked,
    check_input,
    read_json_data,
    split_raw,
)

HEADER_LENGTH = "Inference-Header-Content-Length"


class _Input(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = {}
    data: Any = msgspec.UNSET


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class _Infer(msgspec.Struct):
    inputs: list[_Input]
    id: str = ""
    parameters: dict[str, Parameter] = {}
    outputs: list[_Output] = []


@dataclass(frozen=True, slots=True)
class InferBody:
    """A request's body, read."""

    images: list[bytes]
    id: str = ""
    output: OutputAsked = OutputAsked()
    parameters: dict[str, Parameter] = field(default_factory=dict)


_decoder = msgspec.json.Decoder(_Infer)


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
    is_binary = asked.parameters.get("binary_data_output") is True
    return InferBody(
        _read_images(asked.inputs, raw), asked.id, _read_output(asked.outputs, is_binary), asked.parameters
    )


def encode_answer(answer: InferAnswer, call_id: str, *, is_binary: bool) -> tuple[bytes, int | None]:
    """The body, and the length of its JSON where raw tensors follow it."""
    output = answer.output
    tensor: dict[str, Any] = {"name": OUTPUT, "datatype": output.datatype, "shape": output.shape}
    told: dict[str, Any] = {
        "model_name": answer.model.name,
        "model_version": str(answer.model.version),
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
    size = one.parameters.get("binary_data_size")
    if size is None:
        if raw:
            raise BadRequest("raw data follow the JSON, but no binary_data_size says so", "inputs")
        return read_json_data(one.datatype, shape, None if one.data is msgspec.UNSET else one.data)
    if one.data is not msgspec.UNSET:
        raise BadRequest("an input has both data and binary_data_size", "data")
    if isinstance(size, bool) or size != len(raw):
        raise BadRequest(f"binary_data_size is not the {len(raw)} bytes that follow", "binary_data_size")
    return split_raw(one.datatype, shape, raw)


def _read_output(outputs: list[_Output], is_binary: bool) -> OutputAsked:
    asked = OutputAsked(is_binary=is_binary)
    for one in outputs:
        check_output(one.name)
        classification = read_classification(one.parameters.get("classification", 0))
        binary_data = one.parameters.get("binary_data", is_binary)
        if not isinstance(binary_data, bool):
            raise BadRequest("binary_data must be true or false", "binary_data")
        asked = OutputAsked(classification, binary_data)
    return asked


def _clip(err: Exception) -> str:
    return str(err)[:200]
