"""The stage board: which image each of a worker's threads is busy with, readable after the worker's death.

One anonymous memory file per worker, made by the supervisor and mapped by both. Each lane (compute thread)
owns one entry and writes it without a lock; the supervisor reads it for the watchdog and, after a death, for
suspects.
"""

import mmap
import os
import struct
import time
from dataclasses import dataclass
from enum import IntEnum

LANES = 64
_ENTRY = struct.Struct("=BxxxIQdd")  # stage, frontend, id, since, deadline


class Stage(IntEnum):
    """What a lane does with the image it is busy with."""

    IDLE = 0
    DECODE = 1
    INFER = 2


@dataclass(frozen=True, slots=True)
class LaneState:
    """`since` and `deadline` in time.monotonic() seconds; `id` is the request's at slot `frontend`."""

    stage: Stage
    frontend: int
    id: int
    since: float
    deadline: float


class Board:
    """LANES entries in shared memory."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, LANES * _ENTRY.size)

    @staticmethod
    def create() -> "Board":
        """A new board in a memory file that lives as long as somebody holds it."""
        fd = os.memfd_create("stage-board", os.MFD_CLOEXEC)
        os.ftruncate(fd, LANES * _ENTRY.size)
        return Board(fd)

    def enter(self, lane: int, stage: Stage, frontend: int, id: int, deadline: float) -> None:
        """`lane` begins `stage` of that image now."""
        # The stage comes last: it makes the entry count. Not pack_into: that fills with zeros first, and a
        # reader in between saw a deadline of 0, long passed.
        at = lane * _ENTRY.size
        entry = _ENTRY.pack(stage, frontend, id, time.monotonic(), deadline)
        self._map[at + 1 : at + _ENTRY.size] = entry[1:]
        self._map[at] = stage

    def leave(self, lane: int) -> None:
        """`lane` is idle; the rest of its entry stays as it was."""
        self._map[lane * _ENTRY.size] = Stage.IDLE

    def read(self) -> list[LaneState]:
        """The busy lanes."""
        entries = [_ENTRY.unpack_from(self._map, lane * _ENTRY.size) for lane in range(LANES)]
        states = [LaneState(Stage(entry[0]), *entry[1:]) for entry in entries]
        return [state for state in states if state.stage is not Stage.IDLE]

    def close(self) -> None:
        """Unmap and close."""
        self._map.close()
        os.close(self.fd)
