"""Read weights.safetensors without torch: its header, one tensor, and whether every number is finite.

The repository checks versions with it and the engines read the last layer with it. The format is eight
bytes of header length, a JSON header, then the tensors' bytes without gaps.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

MAX_HEADER_BYTES = 16 * 2**20  # ResNet-1202 needs 0.7 MiB
DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}
_CHUNK = 1 << 22  # numbers looked at at once, so that a check of 240 MB takes 16 MB


class BadWeights(ValueError):
    """weights.safetensors is not what it should be; the message names the first tensor that is wrong."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor lies: `offset` and `size` in bytes from the beginning of the file."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    size: int


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name; raises BadWeights unless they fill it without gaps."""
    with path.open("rb") as file:
        return parse_header(file, path.stat().st_size)


def parse_header(file: BinaryIO, size: int) -> dict[str, Tensor]:
    """read_header for an open file of `size` bytes."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
        raise BadWeights(f"the weights' header is said to have {length} bytes, the file has {size}")
    try:
        entries = json.loads(file.read(length))
        tensors = [
            _parse(name, entry, 8 + length) for name, entry in entries.items() if name != "__metadata__"
        ]
    except BadWeights:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as err:
        raise BadWeights("the weights' header is not safetensors") from err
    _refuse_gaps(tensors, 8 + length, size)
    return {tensor.name: tensor for tensor in tensors}


def _parse(name: str, entry: dict[str, Any], base: int) -> Tensor:
    if entry["dtype"] not in DTYPES:
        raise BadWeights(f"tensor {name!r} has dtype {entry['dtype']}; known are {', '.join(DTYPES)}")
    dtype = DTYPES[entry["dtype"]]
    shape = tuple(int(side) for side in entry["shape"])
    begin, end = (int(offset) for offset in entry["data_offsets"])
    if min((begin, *shape), default=0) < 0 or math.prod(shape) * dtype.itemsize != end - begin:
        raise BadWeights(f"tensor {name!r} of shape {list(shape)} does not fill its {end - begin} bytes")
    return Tensor(name, dtype, shape, base + begin, end - begin)


def _refuse_gaps(tensors: list[Tensor], base: int, size: int) -> None:
    expected = base
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.size)):
        if tensor.offset != expected:
            raise BadWeights(f"tensor {tensor.name!r} begins at {tensor.offset}, expected {expected}")
        expected += tensor.size
    if expected != size:
        raise BadWeights(f"the tensors end at byte {expected}, the file at {size}")


def read_tensor(path: Path, tensor: Tensor) -> NDArray[Any]:
    """A copy of one tensor's numbers, in its own shape."""
    flat = np.fromfile(path, tensor.dtype, math.prod(tensor.shape), offset=tensor.offset)
    return flat.reshape(tensor.shape)


def refuse_non_finite(path: Path, tensors: dict[str, Tensor]) -> None:
    """Raise BadWeights naming the first floating-point tensor that holds a NaN or an infinity."""
    for tensor in tensors.values():
        if tensor.dtype.kind != "f" or not tensor.size:
            continue
        numbers = np.memmap(path, tensor.dtype, "r", tensor.offset, (math.prod(tensor.shape),))
        if not all(np.isfinite(numbers[i : i + _CHUNK]).all() for i in range(0, len(numbers), _CHUNK)):
            raise BadWeights(f"tensor {tensor.name!r} holds NaN or infinity")
