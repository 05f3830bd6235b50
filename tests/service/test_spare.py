"""The worker process in waiting: handed out once, never dead, gone when the service is."""

import os
import select
import signal
from collections.abc import Iterator

import pytest

from service.recruits import Recruit
from service.spare import SpareWorker


@pytest.fixture
def spare() -> Iterator[SpareWorker]:
    made = SpareWorker("cpu", first_after_s=0.0)
    yield made
    made.close()


def make_and_take(spare: SpareWorker) -> Recruit:
    spare.make()
    taken = spare.take()
    assert taken is not None
    return taken


def end(recruit: Recruit) -> None:
    recruit.process.kill()
    recruit.process.wait()
    recruit.close()


def test_process_in_waiting_is_handed_out_once(spare: SpareWorker) -> None:
    taken = make_and_take(spare)
    assert taken.process.poll() is None
    assert spare.take() is None
    end(taken)


def test_there_is_one_at_most(spare: SpareWorker) -> None:
    spare.make()
    spare.make()
    first = spare.take()
    assert first is not None
    assert spare.take() is None
    end(first)


def kill(spare: SpareWorker) -> None:
    """kill -9 of the process in waiting; returns once it is dead, without taking its exit code away."""
    assert spare.pid is not None
    pidfd = os.pidfd_open(spare.pid)
    os.kill(spare.pid, signal.SIGKILL)
    select.select([pidfd], [], [])
    os.close(pidfd)


def test_dead_process_is_not_handed_out(spare: SpareWorker) -> None:
    spare.make()
    kill(spare)
    assert spare.take() is None


def test_one_that_dies_by_itself_is_not_replaced_at_once(spare: SpareWorker) -> None:
    spare.make()
    kill(spare)
    spare.make()
    assert spare.pid is None


def test_close_ends_the_process(spare: SpareWorker) -> None:
    spare.make()
    pid = spare.pid
    assert pid is not None
    spare.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
