"""gRPC beside REST and beside a bare echo: `python -m bench.rpc`, with the shipped small model.

One service on free ports and, in a process of its own, a grpc.aio server with the same messages that answers
at once: the most that Python's gRPC could carry here. The callers write HTTP/1.1 and HTTP/2 by hand, because
Python's gRPC client costs more than what it measures; CALLERS images are under way, over CONNECTIONS
connections for gRPC. Subjects take turns; ratios are of the same round, medians are quoted. Processor time of
an answer is told beside rates, since others on the machine hardly change it.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from bench.images import make_images_for
from bench.load import Endpoint, Load, run_load
from bench.load_rpc import Method, run_rpc_load
from bench.machine import describe_machine, probe
from bench.quietness import Quietness
from bench.servers import Server, find_port, run_process, run_server
from bench.serving import serve_command
from service.pb import classifier_pb2 as pb
from service.pb import classifier_pb2_grpc as pb_grpc
from service.settings import ZOO

CALLERS = 32
CONNECTIONS = 4
WARM_UP_S = 1.0
MODEL = "cifar10"
UNARY, STREAM = "/resnet.v1.Classifier/Classify", "/resnet.v1.Classifier/ClassifyStream"

Round = dict[str, Any]


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


@dataclass(frozen=True, slots=True)
class Subject:
    """A server and one way of asking it, for so many seconds."""

    server: Server
    ask: Callable[[float], Load]

    def measure(self, seconds: float) -> Round:
        """Rate, percentiles, errors, processor time of an answer."""
        served_s, client_s, quietness = self.server.cpu_s(), time.process_time(), Quietness()
        load = self.ask(seconds)
        served_s, client_s = self.server.cpu_s() - served_s, time.process_time() - client_s
        return asdict(load) | {
            "cpu_ms": round(1000 * served_s / max(1, load.answers), 3),
            "client_cpu_ms": round(1000 * client_s / max(1, load.answers), 3),
            "others": quietness.others(served_s + client_s),
        }


def list_subjects(stack: ExitStack, images: list[bytes]) -> dict[str, Subject]:
    """Start both servers; they end with `stack`."""
    http, rpc, echo = find_port(), find_port(), find_port()
    rest = Endpoint(http, "/v1/classify")
    command = serve_command(http, ZOO, MODEL, grpc_port=rpc)
    service = stack.enter_context(run_server(command, rest, images[0]))
    bare = stack.enter_context(run_process([sys.executable, "-m", "bench.rpc", "--echo", str(echo)], echo))
    requests = [pb.ClassifyRequest(image=image) for image in images]
    unary = [request.SerializeToString() for request in requests]
    stream = [pb.ClassifyStreamRequest(request=request).SerializeToString() for request in requests]

    def call(port: int, path: str) -> Callable[[float], Load]:
        method, messages = Method(port, path, path == STREAM), stream if path == STREAM else unary
        return lambda seconds: run_rpc_load(method, messages, CALLERS, CONNECTIONS, seconds)

    return {
        "echo unary": Subject(bare, call(echo, UNARY)),
        "echo stream": Subject(bare, call(echo, STREAM)),
        "gRPC unary": Subject(service, call(rpc, UNARY)),
        "gRPC stream": Subject(service, call(rpc, STREAM)),
        "REST": Subject(service, lambda seconds: run_load(rest, images, CALLERS, seconds)),
    }


def summarise(rounds: list[Round]) -> Round:
    """Medians by subject, and of the rounds' own ratios to REST."""
    told: Round = {}
    for subject in rounds[0]["subjects"]:
        mine = [one["subjects"][subject] for one in rounds]
        names = ("rate_per_s", "p50_ms", "p99_ms", "cpu_ms", "client_cpu_ms", "others")
        told[subject] = {name: round(statistics.median(one[name] for one in mine), 3) for name in names}
        told[subject]["errors"] = sum(one["errors"] for one in mine)
        ratios = [
            one["subjects"][subject]["rate_per_s"] / one["subjects"]["REST"]["rate_per_s"] for one in rounds
        ]
        told[subject]["of_REST"] = round(statistics.median(ratios), 3)
    return told


def measure(asked: argparse.Namespace) -> None:
    """Start everything, take turns, print one line a subject."""
    images = make_images_for(32)
    result = describe_machine() | {"callers": CALLERS, "connections": CONNECTIONS, "seconds": asked.seconds}
    rounds: list[Round] = []
    with ExitStack() as stack:
        subjects = list_subjects(stack, images)
        for subject in subjects.values():
            subject.ask(WARM_UP_S)
        for _ in range(asked.rounds):
            measured = {name: subject.measure(asked.seconds) for name, subject in subjects.items()}
            rounds.append({"probe": round(probe(), 1), "subjects": measured})
    summary = summarise(rounds)
    for name, told in summary.items():
        print(f"{name:12} {json.dumps(told)}")
    if asked.out:
        asked.out.write_text(json.dumps(result | {"summary": summary, "rounds": rounds}, indent=1) + "\n")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--echo", type=int, help="be the bare server on this port")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--out", type=Path, help="raw rounds as JSON")
    asked = parser.parse_args()
    if asked.echo:
        asyncio.run(serve_echo(asked.echo))
    else:
        measure(asked)


if __name__ == "__main__":
    main()
