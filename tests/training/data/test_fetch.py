"""Fetching: what comes is checked before it is unpacked."""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from training.data.fetch import Archive, fetch_archive, unpack_archive
from training.errors import DataMissing


def make_archive(member: str) -> bytes:
    """A gzipped tar with one file."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        info = tarfile.TarInfo(member)
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    return file.getvalue()


def test_an_archive_with_the_right_checksum_is_unpacked(tmp_path: Path) -> None:
    data = make_archive("folder/batch")
    archive = Archive("https://example.org/a", hashlib.md5(data).hexdigest())
    unpack_archive(io.BytesIO(data), archive, tmp_path)
    assert (tmp_path / "folder/batch").read_bytes() == b"abc"


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    archive = Archive("https://example.org/a", "0" * 32)
    with pytest.raises(DataMissing, match="came damaged"):
        unpack_archive(io.BytesIO(make_archive("batch")), archive, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unreachable_home_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="download it elsewhere and unpack it"):
        fetch_archive(Archive("https://localhost:9/a", "0" * 32), tmp_path)
