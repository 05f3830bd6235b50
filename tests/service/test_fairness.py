"""Two keys and less worker than both want: each gets its share, and the small one is served at once."""

import asyncio
import gc
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from service.access.keys import find_id
from service.classifier import Classifier
from service.errors import DeadlinePassed
from service.fairness import FairLine, Share
from service.messages import Classify, ModelsChanged, Result, WorkerDown, WorkerUp
from service.metrics import FrontendMetrics
from service.settings import load_settings
from service.transport import make_work_pair
from service.types import ClassifyOptions, ClassifyRequest
from tests.service.access.trials import KeyFile, bearer
from tests.service.frontends import (
    Answers,
    ThreadWorker,
    answer_at_once,
    make_served,
    run_frontend,
    wait_for,
)

COST_MS = 1000.0  # of which a worker is given two at a time; so dear that the test's own pace is nothing


PATIENT = {"max_wait_ms": "20000", "request_timeout_s": "100", "log_level": "warning"}


class Worker:
    """A wait that grows with what is let through and shrinks as the test says."""

    def __init__(self) -> None:
        self.wait_ms = 0.0
        self.served: list[str] = []

    def serve_one(self, line: FairLine) -> None:
        self.wait_ms -= 1.0
        line.leave()


async def ask(line: FairLine, worker: Worker, share: Share, deadline: float | None = None) -> None:
    """One image: waits its turn, then is the worker's."""
    turn = line.enter(share)
    if turn is not None:
        await line.wait(turn, deadline or time.monotonic() + 60)
    worker.wait_ms += share.cost_ms
    worker.served.append(share.caller)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def run_line(waiting: list[Share], steps: int) -> list[str]:
    """Who is served, in order, when all of `waiting` come at once and the worker does `steps` images."""

    async def run() -> list[str]:
        worker = Worker()
        line = FairLine(lambda: worker.wait_ms, 1.0)
        tasks = [asyncio.create_task(ask(line, worker, share)) for share in waiting]
        await settle()
        for _ in range(steps):
            worker.serve_one(line)
            await settle()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return worker.served

    return asyncio.run(run())


def test_a_late_small_key_goes_next_to_a_greedy_one() -> None:
    served = run_line([Share("greedy", 1.0, 1.0)] * 200 + [Share("small", 1.0, 1.0)] * 5, 20)
    assert [number for number, caller in enumerate(served) if caller == "small"][-1] <= 11


@pytest.mark.parametrize("weight", [0.5, 1.0, 3.0])
def test_shares_are_the_weights(weight: float) -> None:
    served = run_line([Share("one", 1.0, 1.0)] * 300 + [Share("other", weight, 1.0)] * 300, 199)
    assert served.count("other") == pytest.approx(200 * weight / (1 + weight), abs=3)


def test_an_image_counts_by_its_cost() -> None:
    async def run() -> dict[str, int]:
        worker = Worker()
        line = FairLine(lambda: worker.wait_ms, 10.0)
        shares = [Share("dear", 1.0, 10.0)] * 100 + [Share("cheap", 1.0, 1.0)] * 300
        tasks = [asyncio.create_task(ask(line, worker, share)) for share in shares]
        for _ in range(400):
            await settle()
            worker.serve_one(line)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return {name: worker.served.count(name) for name in ("dear", "cheap")}

    served = asyncio.run(run())
    assert served["cheap"] / served["dear"] == pytest.approx(10, rel=0.2)


def test_who_left_the_line_is_passed_over() -> None:
    async def run() -> None:
        worker = Worker()
        worker.wait_ms = 5.0
        line = FairLine(lambda: worker.wait_ms, 1.0)
        tasks = [asyncio.create_task(ask(line, worker, Share(name, 1.0, 1.0))) for name in "abc"]
        await settle()
        assert line.predict_wait_ms("a", 1.0) == 3.0  # its image, and those of two others as often
        tasks[0].cancel()
        with pytest.raises(DeadlinePassed):
            await ask(line, worker, Share("d", 1.0, 1.0), time.monotonic() - 1)
        worker.wait_ms = 0.5
        await asyncio.wait_for(tasks[1], 20)
        worker.wait_ms = 0.5
        await asyncio.wait_for(tasks[2], 20)
        assert worker.served == ["b", "c"]
        assert line.predict_wait_ms("a", 1.0) == 0.0

    asyncio.run(run())


class SteppedWorker:
    """Answers an image whenever the test says so, and tells the wait of those it still has."""

    def __init__(self) -> None:
        self.waiting: list[Classify] = []

    def keep(self, message: Classify, _: bytes) -> Answers:
        self.waiting.append(message)
        return []

    def take(self) -> tuple[Classify, Result]:
        message = self.waiting.pop(0)
        wait_ms = COST_MS * len(self.waiting)
        return message, Result(message.id, [0], [1.0], "center", "center", 1, 0.0, 0.0, 0.0, wait_ms)


def test_a_greedy_key_starves_nobody(tmp_path: Path) -> None:
    """Forty images of one key, then three of another: those go to the worker among the next few, not last;
    of the greedy one's images those are refused that its own share would keep too long.
    """
    file = KeyFile(tmp_path / "keys.json")
    greedy, small = file.add("classify"), file.add("classify")
    assert find_id(greedy) != find_id(small)
    stepped = SteppedWorker()

    async def run(url: str, say: Callable[[Result], None]) -> tuple[list[int], list[int], list[str]]:
        order: list[str] = []
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=url, timeout=100, limits=limits) as client:

            def post(key: str, count: int) -> list[asyncio.Task[httpx.Response]]:
                name = "greedy" if key == greedy else "small"
                query = {"top_k": "1" if name == "greedy" else "2"}
                return [
                    asyncio.create_task(
                        client.post("/v1/classify", params=query, content=b"x", headers=bearer(key))
                    )
                    for _ in range(count)
                ]

            first = post(greedy, 40)
            async with asyncio.timeout(60):
                while not stepped.waiting or sum(task.done() for task in first) < 15:  # noqa: ASYNC110  # threads
                    await asyncio.sleep(0.01)
            refused = [task for task in first if task.done()]
            second = post(small, 3)
            while not all(task.done() for task in [*first, *second]):
                await asyncio.sleep(0.02)
                if stepped.waiting:
                    message, result = stepped.take()
                    order.append("greedy" if message.options.top_k == 1 else "small")
                    say(result)
            assert all(task.result().status_code == 503 for task in refused)
            return (
                [task.result().status_code for task in first],
                [task.result().status_code for task in second],
                order,
            )

    with run_frontend(api_keys=str(file.path), batch_budget_ms=str(COST_MS), **PATIENT) as frontend:
        model = make_served(frontend.directory)
        worker = frontend.add_worker(1, stepped.keep, model, {"center": COST_MS})
        wait_for(lambda: httpx.get(f"{frontend.url}/readyz").status_code == 200)
        greedy_codes, small_codes, order = asyncio.run(run(frontend.url, worker.say))
    assert small_codes == [200, 200, 200]
    assert order.index("small") <= 5
    assert max(at for at, name in enumerate(order) if name == "small") <= 10
    assert set(greedy_codes) == {200, 503}
    assert 15 <= greedy_codes.count(200) <= 25  # twenty seconds' worth


def count_lines() -> int:
    gc.collect()
    return sum(
        type(one) is FairLine for one in gc.get_objects()
    )  # others answer for their classes with warnings


def test_a_version_that_is_gone_leaves_no_line_behind(tmp_path: Path) -> None:
    async def run() -> list[int]:
        classifier = Classifier(load_settings({}, {}), FrontendMetrics(tmp_path, 0))
        lines = []
        for version in (1, 2, 3):
            model = make_served(tmp_path, version=version)
            classifier.apply(ModelsChanged("cifar10", [model], []))
            ours, theirs = make_work_pair()
            worker = ThreadWorker(theirs, answer_at_once)
            classifier.apply(WorkerUp(version, "cpu", model, {"center": 1.0}), ours)
            options = ClassifyOptions()
            await classifier.classify(ClassifyRequest(b"x", "id", time.monotonic() + 60, options, "key"))
            classifier.apply(WorkerDown(version, "exit code 0", []))
            await asyncio.to_thread(worker.die)
            lines.append(count_lines())
        classifier.close()
        return lines

    assert asyncio.run(run()) == [1, 1, 1]
