"""What an archive may hold: regular files under relative names, not archives themselves, not bombs."""

import re
from pathlib import Path, PurePosixPath
from typing import Protocol

from service.errors import BadRequest, ServiceError, TooLarge

MAX_RATIO = 100  # of what comes out to what went in; photographs are at 1, raw bitmaps of drawings near 50
CHUNK_BYTES = 1 << 18
MAX_NAME_BYTES = 4_096
_DRIVE = re.compile(r"[A-Za-z]:")
_NESTED = (
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x1f\x8b",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!\x1a\x07",
    b"\xfd7zXZ\x00",
    b"BZh",
    b"\x28\xb5\x2f\xfd",
)
HEAD_BYTES = 265  # where a tar says that it is one: "ustar" at 257


class MemberSink(Protocol):
    """Where a reader puts what it unpacks: per member `begin`, some `write`, maybe `fail`, then `end`.

    Each may raise ServiceError, which ends the reading.
    """

    @property
    def folder(self) -> Path:
        """A folder for the reader's own file, which is gone when it returns."""
        ...

    def check_count(self, count: int) -> None:
        """The archive says that it has so many members."""
        ...

    def check_size(self, size_bytes: int) -> None:
        """The archive, or all that comes out of it, has at least so many bytes."""
        ...

    def begin(self, id: str) -> None:
        """The next member's name, as the archive has it."""
        ...

    def write(self, data: bytes | memoryview) -> None:
        """More of its bytes."""
        ...

    def fail(self, error: ServiceError) -> None:
        """Its data is damaged."""
        ...

    def end(self) -> None:
        """It is complete."""
        ...


def refuse_member(name: str, why: str) -> BadRequest:
    """The error for a whole archive, naming the member at fault."""
    return BadRequest(f"member {clip_name(name)!r} {why}")


def clip_name(name: str) -> str:
    """Short enough for a message."""
    return name if len(name) <= 120 else f"{name[:120]}..."


def check_name(name: str) -> None:
    """Raises BadRequest for a name that leaves the archive's root, in the manner of any system."""
    if not name or "\0" in name or len(name) > MAX_NAME_BYTES:
        raise refuse_member(name, "has no acceptable name")
    path = name.replace("\\", "/")
    if path.startswith("/") or _DRIVE.match(path):
        raise refuse_member(name, "has an absolute name")
    if ".." in PurePosixPath(path).parts:
        raise refuse_member(name, "lies outside the archive's root")


def check_head(name: str, head: bytes) -> None:
    """`head`: the member's first HEAD_BYTES; raises BadRequest if it is an archive itself."""
    if head.startswith(_NESTED) or head[257:262] == b"ustar":
        raise refuse_member(name, "is an archive inside the archive")


def check_ratio(name: str, packed_bytes: int, unpacked_bytes: int) -> None:
    """Raises TooLarge for a member that grows more than MAX_RATIO times."""
    if unpacked_bytes > MAX_RATIO * packed_bytes:
        detail = f"unpacks to more than {MAX_RATIO} times its size"
        raise TooLarge(f"member {clip_name(name)!r} {detail}")


def is_litter(name: str) -> bool:
    """What archivers of desktop systems add by themselves; nobody asked for its class."""
    return name.startswith("__MACOSX/") or PurePosixPath(name).name in (".DS_Store", "Thumbs.db")
