"""One child process as the supervisor sees it: started by exec, spoken to over its control channel.

A child leads its own process group, so that the terminal's Ctrl-C reaches the supervisor alone. Its logs go
to the supervisor's stderr; its own stderr is a memory file that holds its last words.
"""

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field

from service.board import Board, LaneState, Stage
from service.messages import ChildState, ControlMessage, ServedModel
from service.recruits import Recruit, Role, exec_child
from service.transport import ControlChannel

LAST_WORDS_BYTES = 2_000
# Signals a process raises by its own doing; SIGKILL comes from outside and blames nobody.
OWN_DOING = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE})


@dataclass(slots=True, eq=False)
class Child:
    """`slot` is unique among living children and names its metric files; it is reused after a death."""

    role: Role
    slot: int
    process: subprocess.Popen[bytes]
    pidfd: int
    control: ControlChannel
    stderr_fd: int
    restarts: int
    board: Board | None = None
    model: ServedModel | None = None
    device: str = ""
    state: str = "starting"  # starting | up | retiring
    cost_ms: dict[str, float] = field(default_factory=dict)
    refusal: str | None = None
    started: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)

    @property
    def pid(self) -> int:
        """The operating system's process id."""
        return self.process.pid

    def say(self, message: ControlMessage, *fds: int) -> None:
        """Send to the child; a child that is gone hears nothing, its death is noticed elsewhere."""
        try:
            self.control.send(message, *fds)
        except OSError:
            return

    def kill(self) -> None:
        """SIGKILL, now."""
        self.process.kill()

    def read_last_words(self) -> str:
        """The end of what it wrote to stderr: a fatal signal's stack, an uncaught exception, a C library."""
        size = os.fstat(self.stderr_fd).st_size
        start = max(0, size - LAST_WORDS_BYTES)
        return os.pread(self.stderr_fd, LAST_WORDS_BYTES, start).decode(errors="replace").strip()

    def list_stuck(self, now: float, grace_s: float) -> list[LaneState]:
        """The lanes busy with an image whose deadline passed more than `grace_s` ago."""
        lanes = self.board.read() if self.board else []
        return [lane for lane in lanes if lane.deadline + grace_s < now]

    def list_suspects(self, returncode: int) -> list[LaneState]:
        """After its death: the images in a decoder, if it died of its own doing; else none."""
        if self.board is None or -returncode not in OWN_DOING:
            return []
        return [lane for lane in self.board.read() if lane.stage is Stage.DECODE]

    def describe(self) -> ChildState:
        """For /v1/status."""
        model = f"{self.model.name}@{self.model.version}" if self.model else ""
        return ChildState(self.role, self.slot, self.pid, self.state, self.restarts, model, self.device, "")

    def close(self) -> None:
        """Release what the supervisor held of it."""
        self.control.close()
        os.close(self.pidfd)
        os.close(self.stderr_fd)
        if self.board:
            self.board.close()


def enlist(recruit: Recruit, slot: int, start: ControlMessage, fds: list[int], restarts: int) -> Child:
    """Send a process its first message, or its next one, with `fds`: from now on it has that slot."""
    process = recruit.process
    pidfd = os.pidfd_open(process.pid)
    control = ControlChannel(recruit.control)
    child = Child(recruit.role, slot, process, pidfd, control, recruit.stderr_fd, restarts)
    child.say(start, *fds)
    return child


def start_child(role: Role, slot: int, start: ControlMessage, fds: list[int], restarts: int) -> Child:
    """Exec a child and send it its first message with `fds`."""
    return enlist(exec_child(role), slot, start, fds, restarts)
