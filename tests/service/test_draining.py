"""The end of a frontend: what was accepted is answered, what comes meanwhile too, and nothing is left."""

import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx

from service.messages import Classify, Drain
from tests.service.frontends import Answers, answer_at_once, is_alive, run_frontend, wait_for

URL = "/v1/classify"


def test_drain_answers_what_was_accepted_then_exits_with_zero() -> None:
    held: list[Classify] = []

    def hold(message: Classify, _: bytes) -> Answers:
        held.append(message)
        return []

    with run_frontend() as frontend, ThreadPoolExecutor() as pool:
        worker = frontend.add_worker(0, hold)
        waiting = pool.submit(httpx.post, frontend.url + URL, content=b"x", timeout=20)
        wait_for(lambda: len(held) == 1)
        frontend.child.say(Drain())
        with httpx.Client(base_url=frontend.url) as client:
            wait_for(lambda: frontend.child.process.poll() is None and refuses(frontend.http_port))
        for answer, payload in answer_at_once(held[0], b""):
            worker.say(answer, payload)
        response = waiting.result()
        assert response.status_code == 200
        assert frontend.stop() == 0
        assert client.is_closed


def refuses(port: int) -> bool:
    """Whether that port takes no more connections."""
    try:
        with socket.create_connection(("127.0.0.1", port), 0.2):
            return False
    except (TimeoutError, ConnectionError):
        return True


def test_request_on_an_open_connection_is_answered_while_draining_and_told_to_close() -> None:
    with run_frontend() as frontend, httpx.Client(base_url=frontend.url) as client:
        frontend.add_worker(0)
        assert "connection" not in client.post(URL, content=b"x").headers
        frontend.child.say(Drain())
        statuses = []
        for _ in range(2):  # the second meets a closed connection and, in the supervisor, a closed port
            response = client.get("/readyz")
            statuses.append((response.status_code, response.json()["type"], response.headers["connection"]))
            if response.headers.get("connection") == "close":
                break
        assert statuses == [(503, "draining", "close")]
        assert frontend.stop() == 0


def test_idle_frontend_drains_at_once() -> None:
    with run_frontend() as frontend:
        frontend.add_worker(0)
        frontend.child.say(Drain())
        assert frontend.stop() == 0


def test_drain_is_bounded() -> None:
    with run_frontend(drain_timeout="1") as frontend, ThreadPoolExecutor() as pool:
        worker = frontend.add_worker(0, lambda message, payload: [])
        waiting = pool.submit(httpx.post, frontend.url + URL, content=b"x", timeout=20)
        wait_for(lambda: len(worker.received) == 1)
        frontend.child.say(Drain())
        assert frontend.stop() == 0
        assert (waiting.result().status_code, waiting.result().json()["type"]) == (503, "draining")


def test_terminal_signals_are_left_to_the_supervisor() -> None:
    with run_frontend() as frontend:
        frontend.add_worker(0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(frontend.child.pid, number)
        assert httpx.post(frontend.url + URL, content=b"x").status_code == 200


def test_supervisors_death_ends_the_frontend() -> None:
    with run_frontend() as frontend:
        frontend.add_worker(0)
        pid = frontend.child.pid
        assert is_alive(pid)
        frontend.child.control.close()  # as the kernel does for a killed supervisor
        assert frontend.stop() == 1
