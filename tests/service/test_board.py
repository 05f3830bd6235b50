"""The stage board read by one process while another writes it."""

import subprocess
import sys
from pathlib import Path

from service.board import Board, Stage

ROOT = Path(__file__).resolve().parents[2]
WRITER = """
import sys
from service.board import Board, Stage
board = Board(int(sys.argv[1]))
for turn in range(200_000):
    board.enter(0, Stage.DECODE, 1, 2, 3e9)
    board.enter(0, Stage.INFER, 1, 2, 3e9)
    board.leave(0)
"""


def test_a_lane_is_never_seen_with_half_an_entry() -> None:
    board = Board.create()
    board.enter(0, Stage.DECODE, 1, 2, 3e9)
    board.leave(0)
    arguments = [sys.executable, "-c", WRITER, str(board.fd)]
    seen, busy = set(), 0
    with subprocess.Popen(arguments, pass_fds=[board.fd], cwd=ROOT) as writer:
        while writer.poll() is None:
            for state in board.read():
                busy += 1
                seen.add((state.frontend, state.id, state.deadline, state.since > 0))
    board.close()
    assert writer.returncode == 0
    assert busy > 100
    assert seen == {(1, 2, 3e9, True)}
