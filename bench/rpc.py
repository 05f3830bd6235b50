"""gRPC beside REST and beside a bare echo: `python -m bench.rpc`, with the shipped small model.

One service on free ports and, in a process of its own, a grpc.aio server with the same messages that answers
at once: the most that Python's gRPC could carry here. Each run is a client process of its own with
CONCURRENCY requests under way for SECONDS, after a second of warm-up; subjects take turns, ROUNDS times. On a
machine of few cores clients and servers share them: rates compare the subjects and are not a server's alone.
What others do on the machine changes rates, but hardly the CPU time of an answer, which is told beside them.
"""

import asyncio
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import grpc.aio
from PIL import Image

from service.pb import classifier_pb2 as pb
from service.pb import classifier_pb2_grpc as pb_grpc

CONCURRENCY = 32
SECONDS = 5.0
WARM_UP_S = 1.0
ROUNDS = 3
STREAMS = 4
CAT = Path(__file__).resolve().parent.parent / "tests" / "data" / "cat.jpg"
SUBJECTS = ("echo unary", "echo stream", "gRPC unary", "gRPC stream", "REST")


@dataclass(frozen=True, slots=True)
class Run:
    """One client's figures; `errors` counts what was not an answer, `ended` all there was, warm-up included.

    `frontend_ms`, `rest_ms`: CPU of the server's front process and of its other processes, for an answer.
    """

    subject: str
    rate_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    ended: int
    frontend_ms: float = 0.0
    rest_ms: float = 0.0


class Clock:
    """Latencies of what ends between the warm-up and the end."""

    def __init__(self) -> None:
        self.begins = time.perf_counter() + WARM_UP_S
        self.ends = self.begins + SECONDS
        self.latencies_s: list[float] = []
        self.errors = 0
        self.ended = 0

    @property
    def is_over(self) -> bool:
        """Nothing new is to be begun."""
        return time.perf_counter() >= self.ends

    def note(self, began: float, *, is_answer: bool) -> None:
        """One request that began then has ended."""
        now = time.perf_counter()
        self.ended += 1
        if self.begins <= now < self.ends:
            self.latencies_s.append(now - began)
            self.errors += not is_answer

    def sum_up(self, subject: str) -> Run:
        """The figures."""
        sorted_ms = sorted(1000 * one for one in self.latencies_s) or [float("nan")]
        rate = (len(self.latencies_s) - self.errors) / SECONDS
        p50, p99 = sorted_ms[len(sorted_ms) // 2], sorted_ms[int(len(sorted_ms) * 0.99)]
        return Run(subject, rate, p50, p99, self.errors, self.ended)


class EchoServicer(pb_grpc.ClassifierServicer):
    """Answers at once with what the service answers."""

    def __init__(self) -> None:
        self._answer = pb.ClassifyResponse(request_id="0" * 32)
        for index in range(5):
            self._answer.predictions.add(index=index, label="cat", probability=0.2)

    async def Classify(  # noqa: N802
        self, request: pb.ClassifyRequest, context: object
    ) -> pb.ClassifyResponse:
        """One image."""
        return self._answer

    async def ClassifyStream(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ClassifyStreamRequest], context: object
    ) -> AsyncIterator[pb.ClassifyStreamResponse]:
        """Many images."""
        async for request in request_iterator:
            yield pb.ClassifyStreamResponse(id=request.id, response=self._answer)

    async def ListModels(  # noqa: N802
        self, request: pb.ListModelsRequest, context: object
    ) -> pb.ListModelsResponse:
        """None."""
        return pb.ListModelsResponse()


async def serve_echo(port: int) -> None:
    """The bare server, until it is killed."""
    server = grpc.aio.server()
    pb_grpc.add_ClassifierServicer_to_server(EchoServicer(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


async def load_unary(port: int, image: bytes, clock: Clock) -> None:
    """CONCURRENCY callers, each with one request under way."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = pb_grpc.ClassifierStub(channel)
        request = pb.ClassifyRequest(image=image)

        async def ask() -> bool:
            return len((await stub.Classify(request)).predictions) > 0

        await _repeat(ask, clock)


async def load_stream(port: int, image: bytes, clock: Clock) -> None:
    """STREAMS streams that have CONCURRENCY images under way together."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = pb_grpc.ClassifierStub(channel)

        async def drive() -> None:
            began: list[float] = []
            room = asyncio.Semaphore(CONCURRENCY // STREAMS)

            async def send() -> AsyncIterator[pb.ClassifyStreamRequest]:
                while not clock.is_over:
                    await room.acquire()
                    began.append(time.perf_counter())
                    yield pb.ClassifyStreamRequest(request=pb.ClassifyRequest(image=image))

            told = 0
            async for answer in stub.ClassifyStream(send()):
                clock.note(began[told], is_answer=answer.WhichOneof("outcome") == "response")
                told += 1
                room.release()

        await asyncio.gather(*(drive() for _ in range(STREAMS)))


async def load_rest(port: int, image: bytes, clock: Clock) -> None:
    """CONCURRENCY connections, each with one request under way, written and read by hand."""
    head = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(image)}\r\n\r\n".encode()

    async def connect() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while not clock.is_over:
            began = time.perf_counter()
            writer.write(head + image)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            clock.note(began, is_answer=answer.startswith(b"HTTP/1.1 200"))
        writer.close()

    await asyncio.gather(*(connect() for _ in range(CONCURRENCY)))


async def _repeat(ask: Callable[[], Awaitable[bool]], clock: Clock) -> None:
    async def work() -> None:
        while not clock.is_over:
            began = time.perf_counter()
            try:
                is_answer = await ask()
            except grpc.RpcError:
                is_answer = False
            clock.note(began, is_answer=is_answer)

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


def run_client(subject: str, port: int, image: Path, server: int) -> Run:
    """The same in a process of its own; `server` is the server's process id."""
    command = [sys.executable, "-m", "bench.rpc", "client", subject, str(port), str(image)]
    before = read_cpu_s(server)
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    after = read_cpu_s(server)
    run = Run(**json.loads(told))
    frontend_ms, rest_ms = (
        (late - early) * 1000 / run.ended for early, late in zip(before, after, strict=True)
    )
    return replace(run, frontend_ms=frontend_ms, rest_ms=rest_ms)


def read_cpu_s(pid: int) -> tuple[float, float]:
    """CPU seconds so far of the frontend among the children of `pid`, or of `pid` itself, and of the rest."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    used = {one: _read_stat_s(one) for one in children or [str(pid)]}
    frontends = {
        one for one in used if not children or b"frontend" in Path(f"/proc/{one}/cmdline").read_bytes()
    }
    return sum(used[one] for one in frontends), sum(used[one] for one in used.keys() - frontends)


def _read_stat_s(pid: str) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def be_client(subject: str, port: int, image: bytes) -> None:
    """What run_client starts."""
    load = {"unary": load_unary, "stream": load_stream, "REST": load_rest}[subject.rsplit(maxsplit=1)[-1]]
    clock = Clock()
    asyncio.run(load(port, image, clock))
    print(json.dumps(asdict(clock.sum_up(subject))))


def find_port() -> int:
    """One that is free."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def start_service(folder: Path, http: int, rpc: int) -> subprocess.Popen[bytes]:
    """The real service, ready."""
    settings = {
        "HTTP_PORT": http,
        "GRPC_PORT": rpc,
        "ADMIN_PORT": 0,
        "JOBS_DIR": folder,
        "LOG_LEVEL": "warning",
    }
    environment = os.environ | {f"SERVE_{name}": str(value) for name, value in settings.items()}
    running = subprocess.Popen([sys.executable, "-m", "service", "serve"], env=environment)
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{http}/readyz")
        except OSError:
            time.sleep(0.1)
        else:
            return running
    running.kill()
    raise RuntimeError("the service was not ready within 60 s")


def write_image(path: Path) -> int:
    """A 32 x 32 JPEG of a cat; returns its size."""
    with Image.open(CAT) as cat:
        cat.convert("RGB").resize((32, 32)).save(path, "JPEG", quality=90)
    return path.stat().st_size


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["echo"]:
        asyncio.run(serve_echo(int(sys.argv[2])))
    elif sys.argv[1:2] == ["client"]:
        be_client(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]).read_bytes())
    else:
        measure()


def measure() -> None:
    """Start everything, take turns, print one line a subject."""
    http, rpc, echo = find_port(), find_port(), find_port()
    with tempfile.TemporaryDirectory() as name:
        image = Path(name) / "cat.jpg"
        size_bytes = write_image(image)
        service = start_service(Path(name), http, rpc)
        bare = subprocess.Popen([sys.executable, "-m", "bench.rpc", "echo", str(echo)])
        try:
            time.sleep(1.0)
            ports = dict(zip(SUBJECTS, (echo, echo, rpc, rpc, http), strict=True))
            pids = {one: bare.pid if "echo" in one else service.pid for one in SUBJECTS}
            runs = [run_client(one, ports[one], image, pids[one]) for _ in range(ROUNDS) for one in SUBJECTS]
        finally:
            for process in (service, bare):
                process.terminate()
                process.wait()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    print(f"{size_bytes} bytes an image, {CONCURRENCY} under way, {ROUNDS} rounds of {SECONDS:.0f} s")
    for subject in SUBJECTS:
        mine = [one for one in runs if one.subject == subject]
        rates = [one.rate_per_s for one in mine]
        print(
            f"{subject:12} median {statistics.median(rates):6.0f}/s  best {max(rates):6.0f}/s  "
            f"p50 {statistics.median(one.p50_ms for one in mine):6.2f} ms  "
            f"p99 {statistics.median(one.p99_ms for one in mine):6.2f} ms  "
            f"CPU an answer {statistics.median(one.frontend_ms for one in mine):.2f} "
            f"+ {statistics.median(one.rest_ms for one in mine):.2f} ms  "
            f"errors {sum(one.errors for one in mine)}"
        )


if __name__ == "__main__":
    main()
