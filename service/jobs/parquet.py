"""Parquet from lines: `python -m service.jobs.parquet BYTES < results.ndjson > results.parquet`.

A process of its own, because Arrow takes about 100 MB that a frontend should not keep. Columns: index, id,
class, label, probability, predictions (list of structs), error, detail.
"""

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO, Any, BinaryIO

from service.jobs.items import Line
from service.jobs.results import line_decoder

GROUP_ROWS = 10_000


def write_parquet(lines: Iterable[Line], out: "IO[bytes] | str") -> int:
    """Write all `lines`, GROUP_ROWS at a time; returns how many there were."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ranked = pa.struct([("index", pa.int32()), ("label", pa.string()), ("probability", pa.float64())])
    schema = pa.schema(
        [
            ("index", pa.int64()),
            ("id", pa.string()),
            ("class", pa.int32()),
            ("label", pa.string()),
            ("probability", pa.float64()),
            ("predictions", pa.list_(ranked)),
            ("error", pa.string()),
            ("detail", pa.string()),
        ]
    )
    count = 0
    iterator = iter(lines)
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        while group := [_make_row(line) for line in islice(iterator, GROUP_ROWS)]:
            writer.write_table(pa.Table.from_pylist(group, schema))
            count += len(group)
    return count


def read_lines(file: BinaryIO, size_bytes: int) -> Iterator[Line]:
    """The lines in the first `size_bytes` bytes of a results file."""
    left = size_bytes
    while left > 0:
        data = file.readline()
        if not data:
            raise EOFError("the results are shorter than they were")
        left -= len(data)
        yield line_decoder.decode(data)


def _make_row(line: Line) -> dict[str, Any]:
    row: dict[str, Any] = {"index": line.index, "id": None if line.id is None else str(line.id)}
    if line.error is not None:
        return row | {"error": line.error.type, "detail": line.error.detail}
    ranked = line.predictions or []
    told = [{"index": one.index, "label": one.label, "probability": one.probability} for one in ranked]
    if ranked:
        best = ranked[0]
        row |= {"class": best.index, "label": best.label, "probability": best.probability}
    return row | {"predictions": told}


if __name__ == "__main__":
    write_parquet(read_lines(sys.stdin.buffer, int(sys.argv[1])), sys.stdout.buffer)
