"""A frontend and a job runner, both real processes, with workers made of a thread each."""

import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from service.children import Child, start_child
from service.messages import (
    Classify,
    Failure,
    ModelsChanged,
    Ready,
    Result,
    ServedModel,
    StartJobs,
    WorkerUp,
)
from service.settings import Settings
from service.transport import make_work_pair
from tests.service.frontends import (
    COST_MS,
    Answers,
    Behaviour,
    RunningFrontend,
    ThreadWorker,
    make_served,
    run_frontend,
)

ASYNC = {"Prefer": "respond-async"}


def answer_by_content(message: Classify, image: bytes) -> Answers:
    """Each image its own answer: class and probability follow from its bytes; b"broken..." is broken."""
    if image.startswith(b"broken"):
        return [(Failure(message.id, "broken-image", "the image cannot be decoded", 0.0), b"")]
    first = sum(image) % 3
    indices = [first, (first + 1) % 3, (first + 2) % 3]
    result = Result(message.id, indices, [0.5, 0.3, 0.2], "center", "center", 1, 0.1, 0.1, 0.1, 0.0)
    return [(result, b"")]


class RunningRunner:
    """A job runner's process, and this process in the supervisor's place."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        self.directory = directory
        metrics = directory / "metrics"
        metrics.mkdir(exist_ok=True)
        start = StartJobs(1, settings.to_json(), str(metrics))
        self.child: Child = start_child("jobs", 1, start, [], 0)
        self.workers: list[ThreadWorker] = []
        readable, _, _ = select.select([self.child.control.fileno()], [], [], 30.0)
        received = self.child.control.receive() if readable else None
        assert received is not None, self.child.read_last_words()
        assert isinstance(received[0], Ready)

    def add_worker(
        self, behave: Behaviour = answer_by_content, served: ServedModel | None = None
    ) -> ThreadWorker:
        """Connect a worker."""
        model = served or make_served(self.directory)
        self.child.control.send(ModelsChanged("cifar10", [model], []))
        ours, theirs = make_work_pair()
        with theirs:
            number = len(self.workers)
            self.child.control.send(WorkerUp(number, "cpu", model, COST_MS), theirs.fileno())
        self.workers.append(ThreadWorker(ours, behave))
        return self.workers[-1]

    def kill(self) -> None:
        """SIGKILL, and wait for it."""
        if self.child.process.returncode is not None:
            return
        self.child.process.send_signal(signal.SIGKILL)
        self.child.process.wait()
        for worker in self.workers:
            worker.die()
        self.workers.clear()
        self.child.close()


@contextmanager
def run_batches(folder: Path, **overrides: str) -> Iterator[RunningFrontend]:
    """A frontend that keeps its jobs in `folder`."""
    with run_frontend(jobs_dir=str(folder), **overrides) as frontend:
        yield frontend


def wait_status(
    client: httpx.Client, location: str, *statuses: str, timeout_s: float = 30.0
) -> dict[str, Any]:
    """The job once its status is one of these."""
    ends = time.monotonic() + timeout_s
    while True:
        job: dict[str, Any] = client.get(location).raise_for_status().json()
        if job["status"] in statuses:
            return job
        assert time.monotonic() < ends, f"waited in vain: {job}"
        time.sleep(0.02)


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Until `condition` holds; fails the test otherwise."""
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.01)
