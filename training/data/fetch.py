"""Fetch a data set from its home: `python -m training fetch cifar10`."""

import hashlib
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from training.errors import DataMissing

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Archive:
    """A tar archive on the web; `md5` is the checksum its home page gives."""

    url: str
    md5: str


ARCHIVES = {
    "cifar10": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
    )
}


def fetch_archive(archive: Archive, root: Path) -> None:
    """Download, check and unpack `archive` into `root`; raises DataMissing."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=root) as file:
        try:
            with urllib.request.urlopen(archive.url, timeout=TIMEOUT_S) as answer:  # noqa: S310  # ours, https
                shutil.copyfileobj(answer, file, CHUNK_BYTES)
        except (urllib.error.URLError, TimeoutError) as err:
            raise DataMissing(
                f"{archive.url} cannot be reached; download it elsewhere and unpack it in {root}"
            ) from err
        unpack_archive(file, archive, root)


def unpack_archive(file: IO[bytes], archive: Archive, root: Path) -> None:
    """Check the bytes of `file` against `archive` and unpack them into `root`; raises DataMissing."""
    file.seek(0)
    digest = hashlib.md5(usedforsecurity=False)
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    found = digest.hexdigest()
    if found != archive.md5:
        raise DataMissing(f"{archive.url} came damaged: MD5 {found}, its home page says {archive.md5}")
    file.seek(0)
    with tarfile.open(fileobj=file) as tar:
        # Python has filters from 3.11.4 on; before, the checksum alone vouches for the archive.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(root)  # noqa: S202
