"""A frontend's line to one worker: what the predicted wait counts."""

import asyncio
import socket
import time
from pathlib import Path

import pytest

from service.errors import DeadlinePassed
from service.links import LinkLost, Outcome, WorkerLink
from service.messages import Load, WorkerUp
from service.transport import encode_frame, make_work_pair
from service.types import ClassifyOptions, ClassifyRequest
from tests.service.frontends import make_served

COST_MS = 100.0
OPTIONS = ClassifyOptions(tta="center")


async def say(link: WorkerLink, worker: socket.socket, wait_ms: float, seen: int) -> float:
    """The worker tells its wait; returns what the link makes of it."""
    worker.sendall(encode_frame(Load(wait_ms, {"center": COST_MS}, float(seen), seen)))
    async with asyncio.timeout(60):
        while link.drain_per_s != seen:  # noqa: ASYNC110  # the link tells nobody
            await asyncio.sleep(0.001)
    return link.predict_wait_ms(time.monotonic())


def test_images_on_their_way_count_until_the_worker_has_counted_them(tmp_path: Path) -> None:
    async def run() -> list[float]:
        ours, worker = make_work_pair()
        up = WorkerUp(0, "cpu", make_served(tmp_path), {"center": COST_MS})
        link = WorkerLink(up, ours, asyncio.get_running_loop(), lambda _: None)
        request = ClassifyRequest(b"x", "id", time.monotonic() + 60, OPTIONS)
        asking = [asyncio.create_task(link.exchange(request, OPTIONS, False)) for _ in range(4)]
        await asyncio.sleep(0)
        waits = [await say(link, worker, 10 * COST_MS, seen) for seen in (1, 3, 4)]
        link.finish([])
        await asyncio.gather(*asking, return_exceptions=True)
        worker.close()
        return waits

    assert asyncio.run(run()) == pytest.approx([13 * COST_MS, 11 * COST_MS, 10 * COST_MS])


class Told:
    """Notes what became of each image."""

    def __init__(self) -> None:
        self.outcomes: dict[int, Outcome] = {}

    def settle(self, id: int, outcome: Outcome) -> None:
        self.outcomes[id] = outcome


def test_each_image_ends_at_its_own_deadline_with_one_timer_for_all(tmp_path: Path) -> None:
    async def run() -> tuple[list[list[int]], Told]:
        ours, worker = make_work_pair()
        up = WorkerUp(0, "cpu", make_served(tmp_path), {"center": COST_MS})
        link = WorkerLink(up, ours, asyncio.get_running_loop(), lambda _: None)
        told, seen = Told(), []
        began = time.monotonic()
        for left_s in (60.0, 0.4, 0.1):
            link.send(ClassifyRequest(b"x", "id", began + left_s, OPTIONS), OPTIONS, told)
        for wait_s in (0.2, 0.6):
            await asyncio.sleep(began + wait_s - time.monotonic())
            seen.append(sorted(told.outcomes))
        assert link.unanswered == 1
        link.finish([1])
        worker.close()
        return seen, told

    seen, told = asyncio.run(run())
    assert seen == [[3], [2, 3]]
    assert [type(told.outcomes[id]) for id in (1, 2, 3)] == [LinkLost, DeadlinePassed, DeadlinePassed]
    lost = told.outcomes[1]
    assert isinstance(lost, LinkLost)
    assert lost.is_suspect


def test_an_image_that_is_late_already_is_not_sent(tmp_path: Path) -> None:
    async def run() -> None:
        ours, worker = make_work_pair()
        up = WorkerUp(0, "cpu", make_served(tmp_path), {"center": COST_MS})
        link = WorkerLink(up, ours, asyncio.get_running_loop(), lambda _: None)
        with pytest.raises(DeadlinePassed):
            link.send(ClassifyRequest(b"x", "id", time.monotonic(), OPTIONS), OPTIONS, Told())
        await asyncio.sleep(0.01)
        worker.setblocking(False)
        with pytest.raises(BlockingIOError):
            worker.recv(1)
        link.finish([])
        worker.close()

    asyncio.run(run())
