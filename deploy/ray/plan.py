"""What a run is of: the source listed once and cut into shards, so that image n stays image n.

The plan is a Parquet file beside the results, one row group a shard, so that whoever scores a shard reads its
part of the list alone. A later run of the same OUT follows the same plan and skips the shards that are there.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import fsspec
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from deploy.ray.storage import StoreFolder
from service.errors import BadRequest, Conflict
from service.offline.inputs import open_folder
from service.types import ClassifyOptions

PLAN = "_plan"  # readers of a folder of Parquet pass over names that begin so
PARQUET = ".parquet"
_ASK = b"resnet-serve.ask"
_SCHEMA = pa.schema(
    [("first", pa.int64()), ("images", pa.int64()), ("name", pa.string()), ("row_group", pa.int32())]
)


class Ask(msgspec.Struct, frozen=True):
    """What a run is asked for; another ask may not go on in its OUT.

    `digest`: of the model version. `image_column` and `id_column` are of a Parquet source; an image is bytes,
    or a struct with `bytes` among its fields.
    """

    source: str
    digest: str
    options: ClassifyOptions
    shard_images: int
    image_column: str = "image"
    id_column: str = "id"


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of a shard: one image file, or row group `row_group` of a Parquet file, -1 where it is none.

    `first` is the number of its first image in the whole source.
    """

    first: int
    images: int
    name: str
    row_group: int = -1


class Plan:
    """`ask`, and the shards it was cut into."""

    def __init__(self, file: pq.ParquetFile) -> None:
        metadata = file.schema_arrow.metadata
        self.ask = msgspec.json.decode(metadata[_ASK], type=Ask)
        self.shards: int = file.num_row_groups
        self._file = file

    def read_shard(self, number: int) -> list[Unit]:
        """The units of one shard, in order."""
        return [Unit(**row) for row in self._file.read_row_group(number).to_pylist()]


def name_part(shard: int) -> str:
    """The file of a finished shard."""
    return f"part-{shard:06}{PARQUET}"


def open_plan(out: StoreFolder) -> Plan:
    """The plan of an earlier run; raises FileNotFoundError."""
    return Plan(pq.ParquetFile(out.open(PLAN)))


def make_plan(ask: Ask, out: StoreFolder) -> Plan:
    """Take up the plan in `out`, or list the source and write one. Raises ServiceError."""
    try:
        plan = open_plan(out)
    except FileNotFoundError:
        out.write(PLAN, _encode(ask, list_units(ask.source)))
        return open_plan(out)
    if plan.ask != ask:
        raise Conflict("OUT was begun with another source, model or option; remove it, or name another")
    return plan


def list_units(source: str) -> Iterator[Unit]:
    """Every image of a folder, or every row group of its Parquet files where it has any, in order of names.

    Raises BadRequest where there is neither.
    """
    first = 0
    for name, groups in _list_parquet(source):
        for number, images in enumerate(groups):
            yield Unit(first, images, name, number)
            first += images
    if first:
        return
    reading = open_folder(source)
    if reading is None:
        raise BadRequest("SOURCE is a folder, a prefix of a store, or a Parquet file")
    for file in reading.list():
        yield Unit(first, 1, file.name)
        first += 1
    if not first:
        raise BadRequest("SOURCE holds neither Parquet nor images")


def _list_parquet(source: str) -> Iterator[tuple[str, list[int]]]:
    store, path = fsspec.core.url_to_fs(source)
    if path.endswith(PARQUET) and store.isfile(path):
        found = [path]
    else:
        found = sorted(name for name in store.find(path) if str(name).endswith(PARQUET))
    for name in found:
        with store.open(name, "rb") as file:
            footer = pq.read_metadata(file)
        yield name, [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]


def _encode(ask: Ask, units: Iterator[Unit]) -> bytes:
    data = io.BytesIO()
    schema = _SCHEMA.with_metadata({_ASK: msgspec.json.encode(ask)})
    with pq.ParquetWriter(data, schema, compression="zstd") as writer:
        for shard in _cut(units, ask.shard_images):
            writer.write_table(pa.Table.from_pylist([_as_row(unit) for unit in shard], schema))
    return data.getvalue()


def _cut(units: Iterator[Unit], shard_images: int) -> Iterator[list[Unit]]:
    """A shard ends with the unit that fills it; a row group is never cut in two."""
    shard: list[Unit] = []
    for unit in units:
        shard.append(unit)
        if unit.first + unit.images - shard[0].first >= shard_images:
            yield shard
            shard = []
    if shard:
        yield shard


def _as_row(unit: Unit) -> dict[str, Any]:
    return {"first": unit.first, "images": unit.images, "name": unit.name, "row_group": unit.row_group}
