"""What callers see when workers die or are slow: nothing, until the deadline. Real frontend process."""

import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from service.messages import Classify, Load, ModelsChanged, RefusedModel, WorkerRetiring
from tests.service.frontends import (
    Answers,
    RunningFrontend,
    answer_at_once,
    make_served,
    run_frontend,
    wait_for,
)

URL = "/v1/classify"


def say_nothing(_: Classify, __: bytes) -> Answers:
    """A worker that takes images and never answers."""
    return []


def post_later(
    pool: ThreadPoolExecutor, frontend: RunningFrontend, content: bytes = b"image", **headers: str
) -> "Future[httpx.Response]":
    """Post an image from another thread."""
    return pool.submit(httpx.post, frontend.url + URL, content=content, headers=headers, timeout=20)


def read_metric(frontend: RunningFrontend, name: str) -> float:
    """The sum of a family's samples in /metrics."""
    lines = httpx.get(f"{frontend.url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_image_of_a_dead_worker_is_answered_by_another() -> None:
    with run_frontend() as frontend, ThreadPoolExecutor() as pool:
        first = frontend.add_worker(0, say_nothing)
        waiting = [post_later(pool, frontend, b"%d" % number) for number in range(5)]
        wait_for(lambda: len(first.received) == 5)
        second = frontend.add_worker(1)
        frontend.kill_worker(0)
        assert [one.result().status_code for one in waiting] == [200] * 5
        assert sorted(payload for _, payload in second.received) == [b"0", b"1", b"2", b"3", b"4"]
        assert not any(message.is_suspect for message, _ in second.received)
        assert read_metric(frontend, "resnet_resent_total") == 5


def test_image_waits_for_the_respawned_worker() -> None:
    with run_frontend() as frontend, ThreadPoolExecutor() as pool:
        first = frontend.add_worker(0, say_nothing)
        early = post_later(pool, frontend)
        wait_for(lambda: len(first.received) == 1)
        frontend.kill_worker(0)
        late = post_later(pool, frontend)
        wait_for(lambda: httpx.get(f"{frontend.url}/readyz").status_code == 503)
        frontend.add_worker(0)
        assert early.result().status_code == late.result().status_code == 200
        assert httpx.get(f"{frontend.url}/readyz").status_code == 200


def test_without_a_worker_the_deadline_ends_the_wait() -> None:
    with run_frontend() as frontend:
        frontend.add_worker(0)
        frontend.kill_worker(0)
        response = httpx.post(frontend.url + URL, content=b"x", headers={"request-timeout": "0.3"})
        assert (response.status_code, response.json()["type"]) == (504, "deadline-passed")


def test_answers_written_before_a_death_count() -> None:
    with run_frontend() as frontend, ThreadPoolExecutor() as pool:
        held: list[Classify] = []

        def hold(message: Classify, _: bytes) -> Answers:
            held.append(message)
            return []

        worker = frontend.add_worker(0, hold)
        waiting = post_later(pool, frontend)
        wait_for(lambda: len(held) == 1)
        for answer, payload in answer_at_once(held[0], b""):
            worker.say(answer, payload)
        frontend.kill_worker(0, suspects=[held[0].id])
        assert waiting.result().status_code == 200


def test_suspect_is_retried_alone_and_innocent_ones_are_not_marked() -> None:
    with run_frontend() as frontend, ThreadPoolExecutor() as pool:
        first = frontend.add_worker(0, say_nothing)
        waiting = [post_later(pool, frontend, b"%d" % number) for number in range(3)]
        wait_for(lambda: len(first.received) == 3)
        (guilty,) = (message.id for message, payload in first.received if payload == b"1")
        frontend.kill_worker(0, suspects=[guilty])
        second = frontend.add_worker(1)
        assert [one.result().status_code for one in waiting] == [200] * 3
        marked = {payload: message.is_suspect for message, payload in second.received}
        assert marked == {b"0": False, b"1": True, b"2": False}


def test_suspects_are_retried_one_at_a_time() -> None:
    busy, most = [0], [0]
    release = threading.Semaphore(0)

    def watch(message: Classify, payload: bytes) -> Answers:
        busy[0] += 1
        most[0] = max(most[0], busy[0])
        release.acquire(timeout=10)
        busy[0] -= 1
        return answer_at_once(message, payload)

    with run_frontend() as frontend, ThreadPoolExecutor() as pool:
        first = frontend.add_worker(0, say_nothing)
        waiting = [post_later(pool, frontend, b"%d" % number) for number in range(2)]
        wait_for(lambda: len(first.received) == 2)
        frontend.kill_worker(0, suspects=[message.id for message, _ in first.received])
        for worker in (1, 2):  # two workers, so that both could be tried at once
            frontend.add_worker(worker, watch)
        release.release(2)
        assert [one.result().status_code for one in waiting] == [200, 200]
        assert most == [1]


def test_second_death_alone_makes_poison_and_quarantines_the_image() -> None:
    with run_frontend() as frontend, ThreadPoolExecutor() as pool:
        waiting = post_later(pool, frontend, b"killer")
        for worker in (0, 1):
            died = frontend.add_worker(worker, say_nothing)
            wait_for(lambda died=died: len(died.received) == 1)  # type: ignore[misc]  # bound in this turn
            frontend.kill_worker(worker, suspects=[died.received[0][0].id])
        response = waiting.result()
        assert (response.status_code, response.json()["type"]) == (422, "poison-image")
        third = frontend.add_worker(2)
        again = httpx.post(frontend.url + URL, content=b"killer")
        assert (again.status_code, again.json()["type"]) == (422, "poison-image")
        assert httpx.post(frontend.url + URL, content=b"harmless").status_code == 200
        assert [payload for _, payload in third.received] == [b"harmless"]


def test_suspect_that_survives_alone_is_answered_and_not_quarantined() -> None:
    with run_frontend() as frontend, ThreadPoolExecutor() as pool:
        waiting = post_later(pool, frontend, b"unlucky")
        died = frontend.add_worker(0, say_nothing)
        wait_for(lambda: len(died.received) == 1)
        frontend.kill_worker(0, suspects=[died.received[0][0].id])
        frontend.add_worker(1)
        assert waiting.result().status_code == 200
        assert httpx.post(frontend.url + URL, content=b"unlucky").status_code == 200


def test_retiring_worker_gets_nothing_new_and_finishes_what_it_has() -> None:
    with run_frontend() as frontend, ThreadPoolExecutor() as pool:
        held: list[Classify] = []

        def hold(message: Classify, _: bytes) -> Answers:
            held.append(message)
            return []

        old = frontend.add_worker(0, hold)
        waiting = post_later(pool, frontend)
        wait_for(lambda: len(held) == 1)
        frontend.child.control.send(WorkerRetiring(0))
        new = frontend.add_worker(1)
        for _ in range(3):
            assert httpx.post(frontend.url + URL, content=b"x").status_code == 200
        assert (len(old.received), len(new.received)) == (1, 3)
        for answer, payload in answer_at_once(held[0], b""):
            old.say(answer, payload)
        assert waiting.result().status_code == 200


def test_nearest_worker_is_chosen_by_predicted_wait() -> None:
    with run_frontend() as frontend:
        busy = frontend.add_worker(0)
        idle = frontend.add_worker(1)
        busy.say(Load(60_000.0, {"center": 1.0}, 10.0, 0))
        wait_for(lambda: wait_of(frontend, 0) > 1000)
        for _ in range(5):
            assert httpx.post(frontend.url + URL, content=b"x").status_code == 200
        assert (len(busy.received), len(idle.received)) == (0, 5)


def wait_of(frontend: RunningFrontend, worker: int) -> float:
    """The predicted wait of a worker, from /v1/status."""
    workers = httpx.get(f"{frontend.url}/v1/status").json()["workers"]
    return next(float(one["wait_ms"]) for one in workers if one["worker"] == worker)


def test_predicted_wait_over_the_limit_is_503_with_retry_after() -> None:
    with run_frontend(max_wait_ms="500") as frontend:
        worker = frontend.add_worker(0)
        worker.say(Load(4_000.0, {"center": 1.0}, 10.0, 0))
        wait_for(lambda: wait_of(frontend, 0) > 1000)
        response = httpx.post(frontend.url + URL, content=b"x")
        assert (response.status_code, response.json()["type"]) == (503, "overloaded")
        assert 2 <= int(response.headers["retry-after"]) <= 5
        assert not worker.received
        assert read_metric(frontend, 'resnet_rejected_total{model="cifar10",reason="wait"}') == 1


def test_overload_is_told_before_the_body_is_read() -> None:
    with run_frontend(max_wait_ms="500") as frontend:
        frontend.add_worker(0).say(Load(60_000.0, {"center": 1.0}, 10.0, 0))
        wait_for(lambda: wait_of(frontend, 0) > 1000)
        with socket.create_connection(("127.0.0.1", frontend.http_port), 10) as sock:
            sock.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 503 ")
        assert read_metric(frontend, 'resnet_images_total{model="cifar10",outcome="overloaded"}') == 1


def test_under_pressure_a_cheaper_policy_is_used_and_told() -> None:
    with run_frontend(max_wait_ms="5000", degrade="true") as frontend:
        worker = frontend.add_worker(0)
        cost_ms = {"center": 1.0, "ten_crop": 10.0}
        calm = httpx.post(f"{frontend.url}{URL}?tta=ten_crop", content=b"x").json()["tta"]
        assert calm == {"asked": "ten_crop", "used": "ten_crop", "views": 1}
        worker.say(Load(4_000.0, cost_ms, 10.0, 0))
        wait_for(lambda: wait_of(frontend, 0) > 3000)
        pressed = httpx.post(f"{frontend.url}{URL}?tta=ten_crop", content=b"x").json()["tta"]
        assert pressed == {"asked": "ten_crop", "used": "center", "views": 1}
        labels = 'asked="ten_crop",model="cifar10",used="center"'
        assert read_metric(frontend, f"resnet_degraded_total{{{labels}}}") == 1


def test_bytes_in_flight_are_bounded_before_the_body_is_read() -> None:
    with run_frontend(max_inflight_bytes="1000") as frontend, ThreadPoolExecutor() as pool:
        worker = frontend.add_worker(0, say_nothing)
        waiting = post_later(pool, frontend, bytes(900))
        wait_for(lambda: len(worker.received) == 1)
        refused = httpx.post(frontend.url + URL, content=bytes(200))
        assert (refused.status_code, refused.json()["type"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert httpx.get(f"{frontend.url}/v1/status").json()["inflight_bytes"] == 900
        frontend.kill_worker(0)
        frontend.add_worker(1)
        assert waiting.result().status_code == 200
        assert httpx.get(f"{frontend.url}/v1/status").json()["inflight_bytes"] == 0


@pytest.mark.parametrize("name", ["cifar10", "cifar10@1", ""], ids=["by name", "by version", "by default"])
def test_new_version_takes_over_bare_names_only(name: str) -> None:
    with run_frontend() as frontend:
        frontend.add_worker(0)
        old = frontend.served[0]
        new = make_served(frontend.directory, version=2)
        frontend.add_worker(1, model=new)
        not_default = type(old)(old.name, old.version, old.digest, old.card_path, False, old.precisions)
        frontend.served = [not_default, new]
        frontend.tell_models()
        wait_for(lambda: version_of(frontend, "cifar10") == 2)
        answer = httpx.post(
            f"{frontend.url}{URL}", params={"model": name} if name else {}, content=b"x"
        ).json()
        assert answer["model"]["version"] == (1 if "@" in name else 2)


def version_of(frontend: RunningFrontend, name: str) -> int:
    """The version that answers to `name`."""
    return int(httpx.get(f"{frontend.url}/v1/models/{name}").json()["version"])


def test_image_of_a_replaced_version_goes_to_the_new_one() -> None:
    with run_frontend() as frontend, ThreadPoolExecutor() as pool:
        old = frontend.add_worker(0, say_nothing)
        waiting = post_later(pool, frontend)
        wait_for(lambda: len(old.received) == 1)
        frontend.kill_worker(0)
        frontend.served = []
        frontend.add_worker(1, model=make_served(frontend.directory, version=2))
        assert waiting.result().json()["model"]["version"] == 2


def test_refused_version_is_told_while_the_old_one_serves() -> None:
    with run_frontend() as frontend:
        frontend.add_worker(0)
        frontend.refused = [
            RefusedModel("cifar10", 3, "graph.onnx: SHA-256 differs"),
            RefusedModel("x", 1, "y"),
        ]
        frontend.tell_models()
        wait_for(lambda: bool(httpx.get(f"{frontend.url}/v1/models/cifar10").json()["refused"]))
        told = httpx.get(f"{frontend.url}/v1/models/cifar10").json()
        assert told["refused"] == [{"version": 3, "reason": "graph.onnx: SHA-256 differs"}]
        assert (told["state"], told["version"]) == ("ready", 1)
        listed = httpx.get(f"{frontend.url}/v1/models").json()["models"]
        assert [(one["name"], one["state"]) for one in listed] == [("cifar10", "ready"), ("x", "refused")]
        assert httpx.post(frontend.url + URL, content=b"x").status_code == 200


def test_unreadable_card_fails_its_own_model_only() -> None:
    with run_frontend() as frontend:
        frontend.add_worker(0)
        broken = make_served(frontend.directory, "broken")
        (frontend.directory / "broken-1.json").write_text("{}")
        frontend.add_worker(1, model=broken)
        frontend.child.control.send(ModelsChanged("cifar10", frontend.served, []))
        wait_for(lambda: len(httpx.get(f"{frontend.url}/v1/models").json()["models"]) == 2)
        assert httpx.post(f"{frontend.url}{URL}?model=broken", content=b"x").status_code == 404
        assert httpx.post(frontend.url + URL, content=b"x").status_code == 200


def repeat(action: Callable[[], httpx.Response], times: int) -> list[int]:
    """The statuses of `times` calls."""
    return [action().status_code for _ in range(times)]


def test_no_request_fails_while_workers_die_under_load() -> None:
    with run_frontend(log_level="warning") as frontend, ThreadPoolExecutor(8) as pool:
        frontend.add_worker(0)
        with httpx.Client(base_url=frontend.url, timeout=20) as client:
            loads = [
                pool.submit(repeat, lambda: client.post(URL, content=bytes(5000)), 100) for _ in range(8)
            ]
            for generation in range(10):
                frontend.add_worker(1000 + generation)
                frontend.kill_worker(1000 + generation - 1 if generation else 0)
            statuses = [status for load in loads for status in load.result()]
        assert statuses == [200] * 800
