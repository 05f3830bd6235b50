"""The readers of untrusted files, graph and weights: any bytes give their own error, never another."""

import io
import json
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from models.graph import BadGraph, parse_graph
from models.tensors import BadWeights, parse_header, read_header, refuse_non_finite

ZOO_LIKE = b"\x08\x08\x3a\x20\x0a\x0c\x0a\x01a\x12\x01b\x22\x04Relu\x5a\x07\x0a\x05views\x62\x07\x0a\x05out.1"


def tensors_file(entries: dict[str, object], data: bytes = b"") -> io.BytesIO:
    header = json.dumps(entries).encode()
    return io.BytesIO(struct.pack("<Q", len(header)) + header + data)


def parse(file: io.BytesIO) -> None:
    parse_header(file, len(file.getvalue()))


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


BAD_HEADERS: dict[str, io.BytesIO] = {
    "empty": io.BytesIO(b""),
    "short": io.BytesIO(b"\x01\x00"),
    "header beyond the file": io.BytesIO(struct.pack("<Q", 2**63) + b"{}"),
    "no JSON": io.BytesIO(struct.pack("<Q", 2) + b"{x"),
    "a list": io.BytesIO(struct.pack("<Q", 2) + b"[]"),
    "deep JSON": io.BytesIO(struct.pack("<Q", 200_000) + b"[" * 200_000),
    "no dtype": tensors_file({"a": {}}),
    "unknown dtype": tensors_file({"a": entry("F8", [1], 0, 1)}, b"1"),
    "negative side": tensors_file({"a": entry("U8", [-1, -1], 0, 1)}, b"1"),
    "negative offset": tensors_file({"a": entry("U8", [1], -1, 0)}),
    "too few bytes": tensors_file({"a": entry("F32", [2], 0, 4)}, b"1234"),
    "beyond the end": tensors_file({"a": entry("U8", [8], 0, 8)}, b"1234"),
    "a gap": tensors_file({"a": entry("U8", [1], 1, 2)}, b"12"),
    "an overlap": tensors_file({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, b"123"),
    "bytes left over": tensors_file({"a": entry("U8", [1], 0, 1)}, b"12"),
    "huge shape": tensors_file({"a": entry("F32", [2**40, 2**40], 0, 4)}, b"1234"),
}


@pytest.mark.parametrize("file", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_bad_header_is_refused(file: io.BytesIO) -> None:
    file.seek(0)
    with pytest.raises(BadWeights):
        parse(file)


def test_infinity_in_any_tensor_is_found(tmp_path: Path) -> None:
    values = np.zeros(10, np.float32)
    values[7] = np.inf
    file = tensors_file({"good": entry("F32", [1], 0, 4), "bad": entry("F32", [10], 4, 44)})
    (tmp_path / "w").write_bytes(file.getvalue() + bytes(4) + values.tobytes())
    tensors = read_header(tmp_path / "w")
    with pytest.raises(BadWeights, match="'bad'"):
        refuse_non_finite(tmp_path / "w", tensors)


def test_small_graph_is_read() -> None:
    graph = parse_graph(ZOO_LIKE)
    assert graph.inputs == ("views",)
    assert graph.outputs == ("out.1",)
    assert graph.operators == frozenset({"Relu"})


def test_damaged_graphs_give_only_bad_graph() -> None:
    """Every cut, every single changed byte, and random bytes: parsed, or BadGraph."""
    chance = random.Random(0)
    damaged = [ZOO_LIKE[:end] for end in range(len(ZOO_LIKE))]
    damaged += [
        ZOO_LIKE[:at] + bytes([chance.randrange(256)]) + ZOO_LIKE[at + 1 :] for at in range(len(ZOO_LIKE))
    ] * 20
    damaged += [chance.randbytes(chance.randrange(200)) for _ in range(5000)]
    refused = 0
    for data in damaged:
        try:
            parse_graph(data)
        except BadGraph:
            refused += 1
    assert refused > 5000


def test_damaged_headers_give_only_bad_weights() -> None:
    good = tensors_file({"a": entry("F32", [2], 0, 8), "b": entry("U8", [3], 8, 11)}, bytes(11)).getvalue()
    chance = random.Random(0)
    parse(io.BytesIO(good))
    for _ in range(20_000):
        at = chance.randrange(len(good))
        data = good[:at] + bytes([chance.randrange(256)]) + good[at + 1 :]
        try:
            parse(io.BytesIO(data))
        except BadWeights:
            continue
