"""Bodies of batches: everything honest is read, everything hostile is refused by the member's name."""

import base64
import codecs
import gzip
import io
import json
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from service.errors import BadRequest, ServiceError, TooLarge
from service.jobs.spool import SpoolLimits
from tests.service.jobs.bodies import (
    digest_body,
    make_multipart,
    make_tar,
    make_zip,
    read_body,
)

NOISE = os.urandom(300_000)
FILES = {
    "cat.jpg": NOISE[:100_001],
    "empty.png": b"",
    "folder/größer.png": NOISE[:513],
    "long/" * 50 + "name.png": NOISE[:512],
}
Maker = Callable[[dict[str, bytes]], bytes]
MULTIPART = "multipart/form-data; boundary=xyz"


def make_ndjson(files: dict[str, bytes]) -> bytes:
    rows = [{"id": name, "b64": base64.b64encode(data).decode()} for name, data in files.items()]
    return "\n".join(json.dumps(row) for row in rows).encode()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param(make_zip(FILES), "application/zip", id="zip, deflated"),
        pytest.param(make_zip(FILES, zipfile.ZIP_STORED), "", id="zip, stored, type unstated"),
        pytest.param(make_tar(FILES), "application/x-tar", id="tar, pax"),
        pytest.param(make_tar(FILES, tar_format=tarfile.GNU_FORMAT), "", id="tar, GNU"),
        pytest.param(make_tar(FILES, "w:gz"), "application/gzip", id="tar.gz"),
        pytest.param(make_ndjson(FILES), "application/x-ndjson", id="NDJSON"),
        pytest.param(make_multipart(list(FILES.items())), MULTIPART, id="multipart"),
    ],
)
@pytest.mark.parametrize("piece_bytes", [97, 1 << 16], ids=["in crumbs", "in lumps"])
def test_every_form_gives_the_same_items(
    body: bytes, content_type: str, piece_bytes: int, tmp_path: Path
) -> None:
    found = read_body(tmp_path, body, content_type, piece_bytes=piece_bytes)
    assert [(item.id, data) for item, data in found] == list(FILES.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "items"]


def test_the_digest_is_of_the_images_not_of_the_body(tmp_path: Path) -> None:
    digests = {
        digest_body(tmp_path, make_zip(FILES)),
        digest_body(tmp_path, make_tar(FILES, "w:gz")),
        digest_body(tmp_path, make_multipart(list(FILES.items()), "xyz"), MULTIPART),
        digest_body(tmp_path, make_multipart(list(FILES.items()), "abc"), MULTIPART.replace("xyz", "abc")),
    }
    assert len(digests) == 1
    assert digest_body(tmp_path, make_zip(FILES | {"cat.jpg": NOISE[:100_000]})) not in digests


def test_zip_with_a_data_descriptor_is_read(tmp_path: Path) -> None:
    class Unseekable(io.RawIOBase):
        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]  # bytes is all zipfile gives
            self.data += data
            return len(data)

    target = Unseekable()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", NOISE[:1_000])
    (found,) = read_body(tmp_path, bytes(target.data))
    assert found[1] == NOISE[:1_000]


def test_zip64_member_is_read(tmp_path: Path) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive, archive.open("a.png", "w", force_zip64=True) as member:
        member.write(NOISE[:1_000])
    (found,) = read_body(tmp_path, data.getvalue())
    assert found[1] == NOISE[:1_000]


def test_same_name_twice_is_two_items(tmp_path: Path) -> None:
    body = make_multipart([("a.png", b"one"), ("a.png", b"two")])
    found = read_body(tmp_path, body, MULTIPART)
    assert [(item.id, data) for item, data in found] == [("a.png", b"one"), ("a.png", b"two")]


def test_litter_of_desktop_archivers_is_passed_over(tmp_path: Path) -> None:
    found = read_body(tmp_path, make_zip({"__MACOSX/._a.png": b"x", "a.png": b"y", "b/.DS_Store": b"z"}))
    assert [item.id for item, _ in found] == ["a.png"]


# --- limits ---


@pytest.mark.parametrize("make", [make_zip, make_tar, make_ndjson], ids=["zip", "tar", "NDJSON"])
def test_an_image_over_the_limit_is_an_error_of_its_own(make: Maker, tmp_path: Path) -> None:
    body = make({"a": b"1", "big": NOISE[:2_000], "b": b"2"})
    limits = SpoolLimits(1 << 20, 10, 1_000)
    found = read_body(tmp_path, body, limits=limits)
    assert [(item.id, data) for item, data in found] == [("a", b"1"), ("big", b""), ("b", b"2")]
    assert found[1][0].error is not None
    assert found[1][0].error.type == "too-large"


@pytest.mark.parametrize("make", [make_zip, make_tar, make_ndjson], ids=["zip", "tar", "NDJSON"])
@pytest.mark.parametrize(
    ("limits", "named"),
    [
        pytest.param(SpoolLimits(1 << 20, 2, 1 << 20), "SERVE_MAX_BATCH_ITEMS", id="items"),
        pytest.param(SpoolLimits(5_000, 9, 1 << 20), "SERVE_MAX_BATCH_BYTES", id="bytes"),
    ],
)
def test_a_batch_over_a_limit_is_refused_naming_it(
    make: Maker, limits: SpoolLimits, named: str, tmp_path: Path
) -> None:
    body = make({str(number): NOISE[:2_000] for number in range(3)})
    with pytest.raises(TooLarge, match=named):
        read_body(tmp_path, body, limits=limits)


# --- NDJSON and multipart ---


def test_a_bad_line_leaves_its_neighbours_unharmed(tmp_path: Path) -> None:
    good = json.dumps({"id": 7, "b64": base64.b64encode(b"x").decode()})
    lines = [good, '{"id": "a"}', '{"id": "b", "b64": "?"}', "{nonsense", "", good]
    found = read_body(tmp_path, "\n".join(lines).encode())
    assert [item.id for item, _ in found] == [7, None, "b", None, 7]
    assert [item.error.type if item.error else None for item, _ in found] == [
        None,
        "bad-request",
        "bad-request",
        "bad-request",
        None,
    ]


def test_lines_written_on_windows_are_read(tmp_path: Path) -> None:
    body = codecs.BOM_UTF8 + b'{"id": "a", "b64": "eA=="}\r\n\r\n{"id": "b", "b64": "eA=="}\r\n'
    assert [(item.id, data) for item, data in read_body(tmp_path, body)] == [("a", b"x"), ("b", b"x")]


def test_brackets_in_brackets_are_an_error_of_their_line(tmp_path: Path) -> None:
    deep = b'{"id": "a", "b64": "", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
    found = read_body(tmp_path, deep + b'{"id": "b", "b64": "eA=="}')
    assert [(item.id, data) for item, data in found] == [(None, b""), ("b", b"x")]


def test_an_endless_line_is_an_error_of_its_own(tmp_path: Path) -> None:
    long = b'{"id": "a", "b64": "' + b"A" * 300_000 + b'"}\n'
    body = long + b'{"id": "b", "b64": "eA=="}'
    found = read_body(tmp_path, body, limits=SpoolLimits(1 << 20, 10, 1_000))
    assert [(item.id, data) for item, data in found] == [(None, b""), ("b", b"x")]


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        pytest.param(make_multipart([("a", b"x")])[:-6], MULTIPART, "ends before", id="cut off"),
        pytest.param(b"nonsense", MULTIPART, "malformed", id="no boundary in the body"),
        pytest.param(b"", "multipart/form-data", "must state its boundary", id="no boundary stated"),
        pytest.param(make_multipart([("a", b"x")], field="file"), MULTIPART, "part 'file'", id="other field"),
        pytest.param(make_multipart([]), MULTIPART, "no image", id="no part"),
    ],
)
def test_a_malformed_multipart_body_is_refused(
    body: bytes, content_type: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(BadRequest, match=says):
        read_body(tmp_path, body, content_type)


# --- hostile archives ---


def tar_of(info: tarfile.TarInfo, content: bytes = b"") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def special(name: str, kind: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return tar_of(info)


def zip_of(info: zipfile.ZipInfo, content: bytes = b"x") -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(info, content)
    return data.getvalue()


def zip_link() -> bytes:
    info = zipfile.ZipInfo("evil")
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return zip_of(info, b"/etc/passwd")


def encrypted_zip() -> bytes:
    body = bytearray(make_zip({"evil": b"secret"}))
    body[6] |= 1
    body[body.index(b"PK\x01\x02") + 8] |= 1
    return bytes(body)


def overlapping_zip() -> bytes:
    """Two entries of the directory for one local member: the base of quoted-overlap bombs."""
    body = make_zip({"evil": NOISE[:500]}, zipfile.ZIP_STORED)
    start, end = body.index(b"PK\x01\x02"), body.index(b"PK\x05\x06")
    entry = body[start:end]
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, 2 * len(entry), start, 0)
    return body[:start] + entry + entry + tail


def zip_with_size(offset_in_entry: int, claim: int) -> bytes:
    """A zip whose member claims `claim` in both its headers (sizes are 4 bytes later in the directory's)."""
    body = bytearray(make_zip({"evil": NOISE[:500] * 4}))
    entry = body.index(b"PK\x01\x02")
    struct.pack_into("<L", body, entry + offset_in_entry, claim)
    struct.pack_into("<L", body, offset_in_entry - 2, claim)
    return bytes(body)


def zip64_promising_nothing() -> bytes:
    body = bytearray(make_zip({"evil": b"x"}))
    struct.pack_into("<L", body, body.index(b"PK\x01\x02") + 24, 0xFFFFFFFF)
    return bytes(body)


HOSTILE = [
    pytest.param(make_zip({"../evil": b"x"}), "outside the archive's root", id="zip, parent"),
    pytest.param(make_zip({"a/../../evil": b"x"}), "outside the archive's root", id="zip, parent inside"),
    pytest.param(make_zip({"/etc/evil": b"x"}), "absolute", id="zip, absolute"),
    pytest.param(make_zip({"C:\\evil": b"x"}), "absolute", id="zip, drive"),
    pytest.param(make_zip({"..\\evil": b"x"}), "outside the archive's root", id="zip, backslashes"),
    pytest.param(make_tar({"../evil": b"x"}), "outside the archive's root", id="tar, parent"),
    pytest.param(make_tar({"/etc/evil": b"x"}), "absolute", id="tar, absolute"),
    pytest.param(zip_link(), "symbolic link", id="zip, symbolic link"),
    pytest.param(special("evil", tarfile.SYMTYPE), "symbolic link", id="tar, symbolic link"),
    pytest.param(special("evil", tarfile.LNKTYPE), "hard link", id="tar, hard link"),
    pytest.param(special("evil", tarfile.CHRTYPE), "device", id="tar, character device"),
    pytest.param(special("evil", tarfile.BLKTYPE), "device", id="tar, block device"),
    pytest.param(special("evil", tarfile.FIFOTYPE), "pipe", id="tar, pipe"),
    pytest.param(special("evil", tarfile.GNUTYPE_SPARSE), "sparse", id="tar, sparse"),
    pytest.param(encrypted_zip(), "encrypted", id="zip, encrypted"),
    pytest.param(overlapping_zip(), "overlaps", id="zip, overlapping members"),
    pytest.param(make_zip({"evil": make_zip({"a": b"x"})}), "archive inside", id="zip in zip"),
    pytest.param(
        make_zip({"evil": make_tar({"a": b"x"})}, zipfile.ZIP_STORED), "archive inside", id="tar in zip"
    ),
    pytest.param(make_tar({"evil": gzip.compress(b"x")}), "archive inside", id="gzip in tar"),
    pytest.param(make_zip({"evil": bytes(10 << 20)}), "100 times", id="zip bomb"),
    pytest.param(make_zip({"evil": bytes(10_000)}), "100 times", id="small zip bomb"),
    pytest.param(make_tar({"evil": bytes(10 << 20)}, "w:gz"), "100 times", id="gzip bomb"),
    pytest.param(zip_with_size(24, 1_999), "more than the 1999 bytes", id="zip, unpacked size a lie"),
    pytest.param(zip_with_size(20, 1 << 20), "overlaps", id="zip, packed size a lie"),
    pytest.param(zip64_promising_nothing(), "promises zip64", id="zip64 without its sizes"),
]


@pytest.mark.parametrize(("body", "says"), HOSTILE)
def test_a_hostile_archive_is_refused_with_the_member_named(body: bytes, says: str, tmp_path: Path) -> None:
    folder = tmp_path / "job"
    with pytest.raises(ServiceError, match=says) as caught:
        read_body(folder, body)
    assert isinstance(caught.value, BadRequest | TooLarge)
    assert "evil" in caught.value.detail
    assert list(tmp_path.iterdir()) == [folder]
    assert {path.name for path in folder.iterdir()} <= {"images", "items"}


@pytest.mark.parametrize("make", [make_zip, make_tar], ids=["zip", "tar"])
def test_no_cut_of_an_archive_is_taken_for_a_whole_one(make: Maker, tmp_path: Path) -> None:
    body = make({"a": NOISE[:700], "b": NOISE[:50]})
    end = body.rstrip(b"\0") if make is make_tar else body
    for length in range(1, len(end), 13):
        try:
            found = read_body(tmp_path, body[:length])
        except (BadRequest, TooLarge):
            continue
        assert [item.id for item, _ in found] == ["a"], length  # a tar may end between members
        assert make is make_tar


def test_damaged_data_is_an_error_of_its_own(tmp_path: Path) -> None:
    body = bytearray(make_zip({"a": NOISE[:700], "b": NOISE[:50]}, zipfile.ZIP_STORED))
    body[100] ^= 1
    found = read_body(tmp_path, bytes(body))
    assert found[0][0].error is not None
    assert found[0][0].error.type == "broken-image"
    assert found[1][1] == NOISE[:50]


def test_a_huge_extended_header_is_refused_unread(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    with pytest.raises(BadRequest, match="extended header"):
        read_body(tmp_path, header.tobuf(tarfile.GNU_FORMAT))


def make_pax(*records: bytes) -> bytes:
    """A member "x" after pax headers of these contents."""
    parts: list[bytes] = []
    for record in records:
        header = tarfile.TarInfo("pax")
        header.type, header.size = tarfile.XHDTYPE, len(record)
        parts += [header.tobuf(tarfile.USTAR_FORMAT), record, bytes(-len(record) % 512)]
    return b"".join([*parts, make_tar({"x": b"1"})])


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(b"5020 size=" + b"9" * 5009 + b"\n", id="size of five thousand digits"),
        pytest.param(b"000000001" + b"0" * 5000 + b" a=b\n", id="length of five thousand digits"),
        pytest.param(b"20 size=-00000000005\n"[:20], id="negative size"),
        pytest.param(b"99 path=x\n", id="length beyond the header"),
        pytest.param(b"0 a=b\n", id="no length"),
    ],
)
def test_a_damaged_pax_header_is_refused(record: bytes, tmp_path: Path) -> None:
    with pytest.raises(BadRequest):
        read_body(tmp_path, make_pax(record))


def test_a_quarter_of_a_million_pax_records_are_read_and_forgotten(tmp_path: Path) -> None:
    keys = b"".join(b"11 k%05d=\n" % (number % 100_000) for number in range(95_000))
    path = b"14 path=named\n"
    assert [item.id for item, _ in read_body(tmp_path, make_pax(keys, keys + path))] == ["named"]


def test_a_body_of_something_else_is_refused_with_what_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"not a batch; send multipart/form-data"):
        read_body(tmp_path, b"\x89PNG\r\n\x1a\n" + NOISE)
