"""Tensors of the Open Inference Protocol v2, the same for HTTP and gRPC: what comes in, what goes out.

One input, `IMAGE`: BYTES with one encoded image an element, or UINT8 with one padded image a row. One output,
`PROBS`: FP32 [N, K], or BYTES [N, k] of `value:index:label` where `classification` asks for the k best.
"""

import base64
import binascii
import math
import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from service.errors import BadRequest
from service.types import Prediction

INPUT = "IMAGE"
OUTPUT = "PROBS"
# The most images of one request: together they are one answer, so they wait for each other.
MAX_IMAGES = 256
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OutputAsked:
    """`classification`: 0, or how many classes to name; `is_binary`: raw bytes after HTTP's JSON."""

    classification: int = 0
    is_binary: bool = False


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """`values`: float for FP32, str for BYTES, row by row."""

    datatype: str
    shape: Shape
    values: Sequence[float] | Sequence[str]

    def to_bytes(self) -> bytes:
        """Little-endian elements; a BYTES element is its length, uint32, and its UTF-8."""
        if self.datatype == "BYTES":
            texts = [str(value).encode() for value in self.values]
            return b"".join(struct.pack("<I", len(text)) + text for text in texts)
        numbers = array("f", [float(value) for value in self.values])
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers.tobytes()


def check_input(name: str, datatype: str, shape: Shape) -> int:
    """The number of images in an input; raises BadRequest where it is not an IMAGE of a known shape."""
    if name != INPUT:
        raise BadRequest(f"input {name[:80]!r} is not known, the only one is {INPUT}", "inputs")
    if datatype not in ("BYTES", "UINT8"):
        raise BadRequest(f"{INPUT} is {datatype[:20]!r}, it must be BYTES or UINT8", "datatype")
    is_known = len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)
    if datatype == "UINT8":
        is_known = len(shape) == 2
    if not is_known or any(size < 1 for size in shape):
        wanted = "[N] or [N, 1]" if datatype == "BYTES" else "[N, L]"
        raise BadRequest(f"{INPUT} of {datatype} has shape {list(shape)[:8]}, it must be {wanted}", "shape")
    if shape[0] > MAX_IMAGES:
        raise BadRequest(f"the request has {shape[0]} images, the limit is {MAX_IMAGES}", "shape")
    return shape[0]


def split_raw(datatype: str, shape: Shape, raw: bytes) -> list[bytes]:
    """Images out of a tensor's bytes; raises BadRequest where they are not what the shape says."""
    if datatype == "UINT8":
        rows, length = shape
        if len(raw) != rows * length:
            raise BadRequest(f"{INPUT} has {len(raw)} bytes, its shape says {rows * length}", "shape")
        return [raw] if rows == 1 else [raw[at : at + length] for at in range(0, len(raw), length)]
    images: list[bytes] = []
    at = 0
    while at < len(raw) and len(images) <= shape[0]:
        if at + 4 > len(raw):
            raise BadRequest(f"element {len(images)} of {INPUT} has no length", "inputs")
        (size,) = struct.unpack_from("<I", raw, at)
        at += 4
        if at + size > len(raw):
            raise BadRequest(f"element {len(images)} of {INPUT} is cut off", "inputs")
        images.append(raw[at : at + size])
        at += size
    return check_count(images, shape)


def read_json_data(datatype: str, shape: Shape, data: object) -> list[bytes]:
    """Images out of a tensor's JSON: base64 strings, or bytes as numbers; raises BadRequest."""
    elements = _flatten(data, shape)
    if datatype == "UINT8":
        try:
            return split_raw(datatype, shape, bytes(elements))  # type: ignore[arg-type]  # raises otherwise
        except (TypeError, ValueError) as err:
            raise BadRequest(f"{INPUT} of UINT8 has data that are not numbers of 0..255", "data") from err
    return check_count([_decode(element) for element in elements], shape)


def check_count(images: list[bytes], shape: Shape) -> list[bytes]:
    """The same; raises BadRequest where there are fewer or more than the shape says."""
    if len(images) != math.prod(shape):
        raise BadRequest(f"{INPUT} has not the {math.prod(shape)} elements of its shape", "shape")
    return images


def make_probs(answers: Sequence[Sequence[Prediction]], classes: int) -> OutputTensor:
    """FP32 [N, K] in the order of the classes."""
    values: list[float] = []
    for predictions in answers:
        row = [0.0] * classes
        for one in predictions:
            row[one.index] = one.probability
        values.extend(row)
    return OutputTensor("FP32", (len(answers), classes), values)


def make_classification(answers: Sequence[Sequence[Prediction]], count: int) -> OutputTensor:
    """BYTES [N, k] of `value:index:label`, the best first."""
    rows = [[f"{one.probability:f}:{one.index}:{one.label}" for one in found[:count]] for found in answers]
    return OutputTensor("BYTES", (len(rows), len(rows[0])), [text for row in rows for text in row])


def _flatten(data: object, shape: Shape) -> list[object]:
    """The elements of `data`, an array of them or of rows of them."""
    if not isinstance(data, list):
        raise BadRequest(f"the data of {INPUT} are not an array", "data")
    if not data or not all(isinstance(row, list) for row in data):
        return data
    length = shape[1] if len(shape) > 1 else 1
    if any(len(row) != length for row in data):
        raise BadRequest(f"the data of {INPUT} have rows that are not of {length} elements", "data")
    return [element for row in data for element in row]


def _decode(element: object) -> bytes:
    text = element["b64"] if isinstance(element, dict) and set(element) == {"b64"} else element
    if not isinstance(text, str):
        raise BadRequest(f"an element of {INPUT} is not a base64 string", "data")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as err:
        raise BadRequest(f"an element of {INPUT} is not valid base64", "data") from err
