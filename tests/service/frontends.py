"""A real frontend process with workers made of a thread each, which speak frames and do as a test tells."""

import os
import select
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from models.card import Metric, ModelCard, PolicyCard, Preprocess, Provenance, dump_card
from service.children import Child, start_child
from service.listening import Listeners, open_listeners
from service.messages import (
    Cancel,
    Classify,
    Failure,
    Load,
    ModelsChanged,
    Ready,
    RefusedModel,
    Result,
    ServedModel,
    StartFrontend,
    WorkerDown,
    WorkerUp,
    WorkMessage,
)
from service.settings import Settings, load_settings
from service.transport import FrameReader, encode_frame, make_work_pair

LABELS = ("cat", "dog", "ship")
COST_MS = {"center": 1.0, "flip": 2.0, "ten_crop": 10.0}
Answers = list[tuple[Result | Failure | Load, bytes]]
Behaviour = Callable[[Classify, bytes], Answers]


def make_card(name: str = "cifar10", version: int = 1) -> ModelCard:
    """A card whose model does not exist; frontends read nothing else of a version."""
    return ModelCard(
        name=name,
        version=version,
        architecture="resnet20-cifar",
        labels=LABELS,
        preprocess=Preprocess(32, 32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        window=8,
        provenance=Provenance("trained", "2026-01-01T00:00:00Z", seed=0),
        policies={"center": PolicyCard(), "ten_crop": PolicyCard(temperature=1.5)},
        metrics=(Metric("cifar10", "test", 10_000, "center", 8.5),),
    )


def make_served(directory: Path, name: str = "cifar10", version: int = 1) -> ServedModel:
    """A served version whose card lies in `directory`."""
    path = directory / f"{name}-{version}.json"
    path.write_bytes(dump_card(make_card(name, version)))
    return ServedModel(name, version, f"{name}-{version}-digest", str(path), True, ["fp32"])


def answer_at_once(message: Classify, _: bytes) -> Answers:
    """A null worker's answer: cat."""
    tta = message.options.tta or "center"
    probabilities = [0.7, 0.2, 0.1][: message.options.top_k]
    result = Result(
        message.id, [0, 1, 2][: len(probabilities)], probabilities, tta, tta, 1, 0.1, 0.2, 0.3, 0.0
    )
    return [(result, b"")]


class ThreadWorker:
    """Answers frames on `sock` in a thread of its own; `received` and `cancelled` tell what came."""

    def __init__(self, sock: socket.socket, behave: Behaviour) -> None:
        self._socket = sock
        self._behave = behave
        self.received: list[tuple[Classify, bytes]] = []
        self.cancelled: list[int] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def say(self, message: WorkMessage, payload: bytes = b"") -> None:
        """Send one frame."""
        self._socket.sendall(encode_frame(message, payload))

    def die(self) -> None:
        """Break the connection, as a killed process does."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()

    def _run(self) -> None:
        frames = FrameReader()
        while True:
            try:
                data = self._socket.recv(1 << 18)
            except OSError:
                return
            if not data:
                return
            try:
                for message, payload in frames.feed(data):
                    self._take(message, payload)
            except BrokenPipeError:  # it was told to die while it answered
                return

    def _take(self, message: WorkMessage, payload: bytes) -> None:
        if isinstance(message, Cancel):
            self.cancelled.append(message.id)
        elif isinstance(message, Classify):
            self.received.append((message, payload))
            for answer, content in self._behave(message, payload):
                with suppress(BrokenPipeError):  # who asked was killed
                    self.say(answer, content)


class RunningFrontend:
    """A frontend process, and this process in the supervisor's place."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        self.settings = settings
        self.directory = directory
        self.listeners: Listeners = open_listeners(settings)
        self.http_port: int = self.listeners.http.getsockname()[1]
        self.grpc_port: int = self.listeners.grpc.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.http_port}"
        metrics = directory / "metrics"
        metrics.mkdir(exist_ok=True)
        self._start = StartFrontend(0, settings.to_json(), str(metrics))
        self.child: Child = start_child("frontend", 0, self._start, self.listeners.list_fds(), 0)
        self.workers: dict[int, ThreadWorker] = {}
        self.served: list[ServedModel] = []
        self.refused: list[RefusedModel] = []

    def wait_ready(self) -> None:
        """Until the process says that it serves."""
        while not isinstance(self._hear(30.0), Ready):
            continue

    def replace(self) -> None:
        """Kill the process and start its successor on the same sockets, without workers."""
        self.child.process.kill()
        self.child.process.wait()
        self.child.close()
        for worker in list(self.workers):
            self.workers.pop(worker).die()
        self.served.clear()
        self.child = start_child("frontend", 0, self._start, self.listeners.list_fds(), 1)
        self.wait_ready()

    def add_worker(
        self,
        worker: int,
        behave: Behaviour = answer_at_once,
        model: ServedModel | None = None,
        cost_ms: dict[str, float] | None = None,
    ) -> ThreadWorker:
        """Connect a worker of `model`, of the default one if None."""
        model = model or make_served(self.directory)
        if model not in self.served:
            self.served.append(model)
            self.tell_models()
        ours, theirs = make_work_pair()
        with theirs:
            up = WorkerUp(worker, "cpu", model, COST_MS if cost_ms is None else cost_ms)
            self.child.control.send(up, theirs.fileno())
        self.workers[worker] = ThreadWorker(ours, behave)
        return self.workers[worker]

    def kill_worker(self, worker: int, suspects: list[int] | None = None) -> None:
        """The worker's connection breaks, then the supervisor tells of its death."""
        self.workers.pop(worker).die()
        self.child.control.send(WorkerDown(worker, "SIGSEGV", suspects or []))

    def tell_models(self) -> None:
        """Send what is served and refused."""
        self.child.control.send(ModelsChanged("cifar10", self.served, self.refused))

    def stop(self) -> int:
        """Wait for the process's own end; returns its exit code."""
        return self.child.process.wait(20)

    def close(self) -> None:
        """Kill what still runs."""
        if self.child.process.poll() is None:
            self.child.process.send_signal(signal.SIGKILL)
            self.child.process.wait()
        for worker in list(self.workers):
            self.workers.pop(worker).die()
        self.child.close()
        self.listeners.close()

    def _hear(self, timeout_s: float) -> object:
        readable, _, _ = select.select([self.child.control.fileno()], [], [], timeout_s)
        received = self.child.control.receive() if readable else None
        if received is None:
            raise AssertionError(f"the frontend did not start: {self.child.read_last_words()}")
        return received[0]


@contextmanager
def run_frontend(**overrides: str) -> Iterator[RunningFrontend]:
    """A frontend on free ports, without workers."""
    ports = {"http_port": "0", "grpc_port": "0", "admin_port": "0"}
    with tempfile.TemporaryDirectory() as directory:
        settings = load_settings(ports | overrides, {})
        frontend = RunningFrontend(Path(directory), settings)
        try:
            frontend.wait_ready()
            yield frontend
        finally:
            frontend.close()


def wait_for(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Until `condition` holds; fails the test otherwise."""
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.005)


def is_alive(pid: int) -> bool:
    """Whether that process runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def read_memory_kb(pid: int) -> int:
    """Resident memory of a process, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])
