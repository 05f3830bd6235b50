"""How many requests a second one frontend carries when workers cost nothing: `python -m bench.frontend`.

The real frontend process on a real port and a process that answers its frames at once, driven by wrk
(Debian package `wrk`) with 1 kB images. Beside it in the same rounds: bare ASGI on the same server as the
limit, and a fixed piece of arithmetic as a probe of the machine, which others may be using.
"""

import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from models.card import ModelCard, Preprocess, Provenance, dump_card
from service.children import Child, start_child
from service.listening import open_listeners
from service.messages import Classify, ModelsChanged, Ready, Result, ServedModel, StartFrontend, WorkerUp
from service.settings import load_settings
from service.transport import FrameReader, encode_frame, make_work_pair

IMAGE_BYTES = 1_000
CONNECTIONS = (1, 8, 32)
ROUNDS = 5
SECONDS = 3
GOAL_PER_S = 4_500
LIBRARIES = ("uvicorn", "httptools", "uvloop", "fastapi", "msgspec")
FORM = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "multipart/form-data; boundary=bench"
wrk.body = "--bench\\r\\nContent-Disposition: form-data; name=\\"img\\"; filename=\\"a.jpg\\"\\r\\n" ..
  "Content-Type: image/jpeg\\r\\n\\r\\n" .. string.rep("x", %d) .. "\\r\\n--bench--\\r\\n"
"""
BARE = """
import asyncio, socket, sys, uvicorn, uvloop
async def app(scope, receive, send):
    while (await receive())["more_body"]:
        pass
    headers = [(b"content-length", b"2"), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})
config = uvicorn.Config(app, http="httptools", ws="none", lifespan="off", log_level="error", access_log=False)
server = uvicorn.Server(config)
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(server.serve([socket.socket(fileno=int(sys.argv[1]))]))
"""


@dataclass(frozen=True, slots=True)
class Round:
    """One run of wrk; `errors` counts socket errors and answers other than 200."""

    subject: str
    connections: int
    rate_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    probe_ms: float


def measure_probe() -> float:
    """Milliseconds of a fixed loop: twice as long means half a core was left for us."""
    began = time.perf_counter()
    sum(number * number for number in range(300_000))
    return (time.perf_counter() - began) * 1000


def answer_frames(fd: int) -> None:
    """The null worker: every image is answered with the same three classes."""
    sock, frames = socket.socket(fileno=fd), FrameReader()
    while data := sock.recv(1 << 18):
        answers = [
            encode_frame(Result(m.id, [0, 1, 2], [0.7, 0.2, 0.1], "center", "center", 1, 0.1, 0.1, 0.1, 0.0))
            for m, _ in frames.feed(data)
            if isinstance(m, Classify)
        ]
        sock.sendall(b"".join(answers))


def start_frontend(directory: Path, log: int, **more: str) -> tuple[Child, subprocess.Popen[bytes], int]:
    """A frontend connected to a null worker, with `more` settings; returns both and its port."""
    ports = {"http_port": "0", "grpc_port": "0", "admin_port": "0"}
    settings = load_settings({**ports, "log_format": "json", **more}, {})
    listeners = open_listeners(settings)
    stderr, sys.stderr = sys.stderr, os.fdopen(os.dup(log), "w")  # the child's logs go where ours go
    child = start_child(
        "frontend", 0, StartFrontend(0, settings.to_json(), str(directory)), listeners.list_fds(), 0
    )
    sys.stderr = stderr
    while not isinstance((child.control.receive() or [None])[0], Ready):
        continue
    ours, theirs = make_work_pair()
    worker = subprocess.Popen(
        [sys.executable, "-m", "bench.frontend", str(ours.fileno())], pass_fds=[ours.fileno()]
    )
    ours.close()
    model = write_model(directory)
    child.say(ModelsChanged("null", [model], []))
    child.say(WorkerUp(0, "cpu", model, {"center": 0.01}), theirs.fileno())
    theirs.close()
    return child, worker, listeners.http.getsockname()[1]


def write_model(directory: Path) -> ServedModel:
    """A card of three labels, all that a frontend reads of a model."""
    card = ModelCard(
        "null",
        1,
        "none",
        ("cat", "dog", "ship"),
        Preprocess(32, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        8,
        Provenance("trained", "2026-01-01T00:00:00Z"),
    )
    path = directory / "card.json"
    path.write_bytes(dump_card(card))
    return ServedModel("null", 1, "digest", str(path), True, ["fp32"])


def start_bare() -> tuple[subprocess.Popen[bytes], int]:
    """uvicorn with an ASGI application that only reads the body."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=2048)
    bare = subprocess.Popen([sys.executable, "-c", BARE, str(sock.fileno())], pass_fds=[sock.fileno()])
    port: int = sock.getsockname()[1]
    sock.close()
    return bare, port


def run_wrk(subject: str, port: int, connections: int, script: str) -> Round:
    """One run of wrk against /v1/classify."""
    url = f"http://127.0.0.1:{port}/v1/classify"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency", "-s", script, url]
    probe_ms = measure_probe()
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = float(_find(r"Requests/sec:\s+([\d.]+)", told) or 0)
    errors = sum(int(number) for number in re.findall(r"(?:connect|read|write|timeout) (\d+)", told))
    errors += int(_find(r"Non-2xx or 3xx responses: (\d+)", told) or 0)
    return Round(subject, connections, rate, _read_ms("50%", told), _read_ms("99%", told), errors, probe_ms)


def _find(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found and found[1]


def _read_ms(percentile: str, text: str) -> float:
    value = _find(rf"{percentile}\s+([\d.]+(?:us|ms|s))\n", text) or "nanms"
    factor = {"us": 0.001, "ms": 1.0}.get(value[-2:], 1000.0)
    return float(value.rstrip("ums")) * factor


def summarize(rounds: list[Round]) -> list[str]:
    """One line per subject and number of connections: medians, and the best, since others use the machine."""
    lines = []
    for subject in dict.fromkeys(one.subject for one in rounds):
        for connections in CONNECTIONS:
            mine = [one for one in rounds if one.subject == subject and one.connections == connections]
            rates = [one.rate_per_s for one in mine]
            lines.append(
                f"{subject:9} c={connections:3}  median {statistics.median(rates):7.0f}/s  "
                f"best {max(rates):7.0f}/s  p50 {statistics.median(one.p50_ms for one in mine):6.2f} ms  "
                f"p99 {statistics.median(one.p99_ms for one in mine):6.2f} ms  "
                f"errors {sum(one.errors for one in mine)}  "
                f"probe {min(one.probe_ms for one in mine):.0f}-{max(one.probe_ms for one in mine):.0f} ms"
            )
    return lines


def describe_run() -> dict[str, object]:
    """What a figure needs to be compared: machine, load by others, versions, commit."""
    model = _find(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text()) or platform.machine()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": model,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "versions": {
            name: version(name) for name in ("uvicorn", "httptools", "uvloop", "fastapi", "msgspec")
        },
        "commit": commit.stdout.strip(),
        "image_bytes": IMAGE_BYTES,
        "seconds_per_round": SECONDS,
    }


def main() -> int:
    """Measure and print; with a file name, write the raw rounds there. With a number, be the null worker."""
    if len(sys.argv) > 1 and sys.argv[1].isdigit():
        answer_frames(int(sys.argv[1]))
        return 0
    if shutil.which("wrk") is None:
        print("wrk was not found: apt-get install wrk")
        return 2
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory() as name, open(os.devnull, "w") as log:
        directory = Path(name)
        script = directory / "form.lua"
        script.write_text(FORM % IMAGE_BYTES)
        frontend, worker, port = start_frontend(directory, log.fileno())
        bare, bare_port = start_bare()
        try:
            time.sleep(1.0)
            for _ in range(ROUNDS):
                for connections in CONNECTIONS:
                    rounds.append(run_wrk("frontend", port, connections, str(script)))
                    rounds.append(run_wrk("bare ASGI", bare_port, connections, str(script)))
        finally:
            frontend.kill()
            bare.terminate()
            worker.wait(10)
            bare.wait(10)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print("\n".join(summarize(rounds)))
    if len(sys.argv) > 1:
        told = describe_run() | {"rounds": [asdict(one) for one in rounds]}
        Path(sys.argv[1]).write_text(json.dumps(told, indent=1) + "\n")
    best = max(one.rate_per_s for one in rounds if one.subject == "frontend" and one.connections == 32)
    return 0 if best >= GOAL_PER_S else 1


if __name__ == "__main__":
    sys.exit(main())
