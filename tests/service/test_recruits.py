"""Processes that were started ahead: taken once, never dead, gone with the context."""

import os
import subprocess
import sys
from pathlib import Path

from service.recruits import Recruit, start_ahead
from tests.serving import ROOT


def end(recruit: Recruit) -> None:
    recruit.process.kill()
    recruit.process.wait()
    recruit.close()


def test_each_is_taken_once_and_by_its_role() -> None:
    with start_ahead("worker", "frontend") as recruits:
        taken = recruits.take("worker")
        assert taken is not None
        assert taken.role == "worker"
        assert recruits.take("worker") is None
        assert recruits.take("jobs") is None
    assert taken.process.poll() is None
    end(taken)


def test_a_dead_one_is_not_taken() -> None:
    with start_ahead("worker") as recruits:
        [recruit] = recruits._waiting
        recruit.process.kill()
        recruit.process.wait()
        assert recruits.take("worker") is None


def test_what_nobody_took_ends_with_the_context() -> None:
    with start_ahead("worker") as recruits:
        [recruit] = recruits._waiting
    assert recruit.process.returncode is not None


def test_a_service_that_cannot_start_leaves_no_process(tmp_path: Path) -> None:
    mark = {"RECRUIT_TEST": tmp_path.name}
    done = subprocess.run(
        [sys.executable, "-m", "service", "serve", "--model-repository", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | mark,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "no model version to serve" in done.stderr
    assert [pid for pid in Path("/proc").iterdir() if is_marked(pid, f"RECRUIT_TEST={tmp_path.name}")] == []


def is_marked(process: Path, mark: str) -> bool:
    """Whether that process was started with `mark` in its environment."""
    try:
        return mark.encode() in (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
