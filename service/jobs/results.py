"""The results of a durable job: one file that only grows, line n being the answer for item n.

A line counts once it is on the disk, and only then is the store told; so after a crash the file may hold
more than the store knows, never less, and its last line may be torn.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from service.jobs.items import Line
from service.jobs.spool import sync_folder
from service.jobs.storage import storage_errors

RESULTS = "results.ndjson"

line_encoder = msgspec.json.Encoder()
line_decoder = msgspec.json.Decoder(Line)


@dataclass(frozen=True, slots=True)
class Progress:
    """How many lines are predictions, how many are errors, and how many bytes they take."""

    done: int = 0
    failed: int = 0
    size_bytes: int = 0

    @property
    def lines(self) -> int:
        """Both kinds."""
        return self.done + self.failed

    def add(self, line: Line, size_bytes: int) -> "Progress":
        """With one more line."""
        return self.add_lines(1, int(line.error is not None), size_bytes)

    def add_lines(self, lines: int, failed: int, size_bytes: int) -> "Progress":
        """With so many more, of which some are errors."""
        return Progress(self.done + lines - failed, self.failed + failed, self.size_bytes + size_bytes)


class ResultsFile:
    """Written by the job runner alone. Blocking."""

    def __init__(self, folder: Path) -> None:
        """Opens or creates it; raises StorageFull."""
        with storage_errors():
            self._fd = os.open(folder / RESULTS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            sync_folder(folder)

    def recover(self, known: Progress) -> Progress:
        """What is really there: `known` and whole lines after it. A torn or alien rest is cut off."""
        size = os.fstat(self._fd).st_size
        progress = known if size >= known.size_bytes else Progress()
        with os.fdopen(os.dup(self._fd), "rb") as file:
            file.seek(progress.size_bytes)
            for data in file:
                line = _parse_line(data)
                if line is None or line.index != progress.lines:
                    break
                progress = progress.add(line, len(data))
        os.ftruncate(self._fd, progress.size_bytes)
        return progress

    def write(self, at: int, data: bytes) -> None:
        """Make `data` durable at offset `at`; may be repeated after a failure. Raises StorageFull."""
        with storage_errors():
            try:
                written = 0
                while written < len(data):
                    written += os.pwrite(self._fd, data[written:], at + written)
                os.fdatasync(self._fd)
            except OSError:
                os.ftruncate(self._fd, at)
                raise

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)


def _parse_line(data: bytes) -> Line | None:
    if not data.endswith(b"\n"):
        return None
    try:
        return line_decoder.decode(data)
    except msgspec.DecodeError:
        return None
