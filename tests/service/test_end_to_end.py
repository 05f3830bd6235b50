"""The whole service as a user starts it: real command, real model, real images; then its deaths."""

import io
import json
import os
import random
import signal
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image, features

from tests.serving import PHOTOGRAPHS, Service, run_service

CAT = (PHOTOGRAPHS / "cat.jpg").read_bytes()
URL = "/v1/classify"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """The shipped model on the CPU."""
    with run_service() as running:
        yield running


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[httpx.Client]:
    """Speaks to it over HTTP."""
    with httpx.Client(base_url=service.http, timeout=60) as made:
        yield made


def encode_cat(image_format: str, mode: str = "RGB", **options: object) -> bytes:
    """The cat in another format."""
    with Image.open(io.BytesIO(CAT)) as image:
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, image_format, **options)
    return buffer.getvalue()


def encode_deep_png() -> bytes:
    """The cat as a PNG of 16-bit grey."""
    with Image.open(io.BytesIO(CAT)) as image:
        grey = np.asarray(image.convert("L"), np.uint16) * 257
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    return buffer.getvalue()


def make_png_bomb(width: int, height: int) -> bytes:
    """A PNG that claims so many pixels and holds next to none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))

    header = struct.pack("!IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def classify(client: httpx.Client, image: bytes, **query: str) -> dict[str, object]:
    """The answer for an image."""
    response = client.post(URL, params=query, content=image)
    assert response.status_code == 200, response.text
    answer: dict[str, object] = response.json()
    return answer


def best_label(client: httpx.Client, image: bytes, **query: str) -> object:
    """The most probable class."""
    predictions = classify(client, image, **query)["predictions"]
    assert isinstance(predictions, list)
    return predictions[0]["label"]


def test_cat_in_a_form_is_a_cat(client: httpx.Client) -> None:
    response = client.post(URL, files={"img": ("cat.jpg", CAT)})
    assert response.status_code == 200
    answer = response.json()
    assert answer["predictions"][0]["label"] == "cat"
    assert len(answer["predictions"]) == 5
    probabilities = [one["probability"] for one in answer["predictions"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert answer["model"]["name"] == "cifar10"
    assert answer["timings_ms"]["total"] >= answer["timings_ms"]["infer"] > 0


@pytest.mark.parametrize(
    ("image_format", "mode"),
    [
        ("JPEG", "RGB"),
        ("JPEG", "L"),
        ("JPEG", "CMYK"),
        ("PNG", "RGB"),
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("GIF", "P"),
        ("WEBP", "RGB"),
        ("BMP", "RGB"),
        ("TIFF", "RGB"),
        pytest.param("AVIF", "RGB", marks=pytest.mark.skipif(not features.check("avif"), reason="no AVIF")),
    ],
)
def test_cat_in_every_format_is_a_cat(client: httpx.Client, image_format: str, mode: str) -> None:
    assert best_label(client, encode_cat(image_format, mode)) == "cat"


def test_deep_grey_png_is_answered(client: httpx.Client) -> None:
    assert classify(client, encode_deep_png())["predictions"]


def test_turned_photograph_is_turned_back(client: httpx.Client) -> None:
    with Image.open(io.BytesIO(CAT)) as image:
        turned = image.transpose(Image.Transpose.ROTATE_90)
        exif = Image.Exif()
        exif[0x0112] = 6  # shown turned right by 90 degrees
        buffer = io.BytesIO()
        turned.save(buffer, "PNG", exif=exif)
        upright = io.BytesIO()
        image.save(upright, "PNG")
    straight = classify(client, upright.getvalue(), logits="1")["logits"]
    assert classify(client, buffer.getvalue(), logits="1")["logits"] == straight


@pytest.mark.parametrize("tta", ["center", "mirror", "ten_crop", "dense", "multi_scale", "adaptive"])
def test_every_view_policy_sees_the_cat(client: httpx.Client, tta: str) -> None:
    answer = classify(client, CAT, tta=tta)
    used = answer["tta"]
    assert isinstance(used, dict)
    assert (used["asked"], used["used"]) == (tta, tta)
    assert used["views"] >= 1
    assert best_label(client, CAT, tta=tta) == "cat"


@pytest.mark.parametrize(
    ("image", "query", "status", "slug"),
    [
        pytest.param(b"", {}, 400, "bad-request", id="nothing"),
        pytest.param(CAT, {"tta": "made_up"}, 400, "bad-request", id="unknown policy"),
        pytest.param(CAT, {"model": "vgg"}, 404, "unknown-model", id="unknown model"),
        pytest.param(bytes(20_000_001), {}, 413, "too-large", id="too many bytes"),
        pytest.param(make_png_bomb(50_001, 1_000), {}, 413, "too-large", id="too many pixels"),
        pytest.param(b"hello, world\n" * 10, {}, 415, "unsupported-format", id="text"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n", {}, 415, "unsupported-format", id="EPS"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", {}, 415, "unsupported-format", id="SVG"),
        pytest.param(CAT[:200], {}, 422, "broken-image", id="only a header"),
        pytest.param(make_png_bomb(10, 10), {}, 422, "broken-image", id="no pixels in it"),
    ],
)
def test_refusals(client: httpx.Client, image: bytes, query: dict[str, str], status: int, slug: str) -> None:
    response = client.post(URL, params=query, content=image)
    assert (response.status_code, response.json()["type"]) == (status, slug)


def test_broken_images_never_get_a_5xx(client: httpx.Client) -> None:
    source = random.Random(1)
    seeds = [encode_cat(name) for name in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")]
    for number in range(120):
        broken = bytearray(source.choice(seeds)[: source.randrange(20, 30_000)])
        for _ in range(source.randrange(20)):
            broken[source.randrange(len(broken))] = source.randrange(256)
        response = client.post(URL, content=bytes(broken))
        assert response.status_code in (200, 413, 415, 422), (number, response.text)
        if response.status_code != 200:
            assert "/" not in response.json()["detail"].replace("image/", "")


def test_answers_under_load_are_the_answers_alone(service: Service) -> None:
    images = [CAT, *(encode_cat("PNG", mode) for mode in ("RGB", "L", "P"))]
    with httpx.Client(base_url=service.http, timeout=60) as client:
        alone = [classify(client, image, logits="1")["logits"] for image in images]

        def ask(number: int) -> bool:
            return classify(client, images[number % 4], logits="1")["logits"] == alone[number % 4]

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(ask, range(400)))


def test_metrics_tell_of_frontend_and_worker_on_one_page(client: httpx.Client) -> None:
    classify(client, CAT)
    text = client.get("/metrics").text
    for sample in (
        'resnet_requests_total{code="200",model="cifar10",protocol="http",route="/v1/classify"}',
        'resnet_batch_views_count{model="cifar10"}',
        'resnet_workers{model="cifar10",version="1"} 1.0',
    ):
        assert sample in text


def test_two_frontends_share_the_port_and_count_as_one() -> None:
    with run_service(frontends=2) as service:
        wait_for(lambda: count_up(service, "frontend") == 2)

        def ask(_: int) -> int:  # a connection each, which the kernel gives to either frontend
            return httpx.post(service.http + URL, content=CAT, timeout=60).status_code

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(ask, range(60))) == {200}
        sample = 'resnet_requests_total{code="200",model="cifar10",protocol="http",route="/v1/classify"} 60.0'
        for _ in range(4):  # whichever answers tells of both
            assert sample in httpx.get(f"{service.http}/metrics").text


def count_up(service: Service, role: str) -> int:
    """How many children of that role are up."""
    children = service.get_json("/v1/status")["children"]
    return sum(one["role"] == role and one["state"] == "up" for one in children)


def keep_asking(base_url: str, until: Callable[[], bool], statuses: list[int]) -> None:
    """Post the cat over and over; a connection that is refused ends it."""
    with httpx.Client(base_url=base_url, timeout=30) as client:
        while not until():
            try:
                statuses.append(client.post(URL, content=CAT, headers={"request-timeout": "20"}).status_code)
            except httpx.ConnectError:
                return


def test_killed_worker_is_not_noticed_by_callers() -> None:
    with run_service() as service:
        stop = threading.Event()
        statuses: list[list[int]] = [[] for _ in range(4)]
        with ThreadPoolExecutor() as pool:
            asking = [pool.submit(keep_asking, service.http, stop.is_set, mine) for mine in statuses]
            try:
                for _ in range(3):
                    killed = find_worker(service)
                    os.kill(killed, signal.SIGKILL)
                    wait_for(lambda killed=killed: find_worker(service) not in (0, killed), 40)  # type: ignore[misc]
            finally:
                stop.set()
            for one in asking:
                one.result()
        assert sum(line["message"] == "worker died" for line in service.log) == 3
        assert {status for mine in statuses for status in mine} == {200}


def find_worker(service: Service) -> int:
    """The process id of the worker that is up, 0 where none is."""
    children = service.get_json("/v1/status")["children"]
    pids = [int(one["pid"]) for one in children if one["role"] == "worker" and one["state"] == "up"]
    return pids[0] if pids else 0


def wait_for(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Until `condition` holds; fails the test otherwise."""
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.05)


def test_sigterm_under_load_loses_no_accepted_request() -> None:
    with run_service() as service:
        statuses: list[list[int]] = [[] for _ in range(4)]
        failures: list[Exception] = []

        def ask(mine: list[int]) -> None:
            try:
                keep_asking(service.http, lambda: False, mine)
            except httpx.HTTPError as error:
                failures.append(error)

        pids = service.list_pids()
        with ThreadPoolExecutor() as pool:
            asking = [pool.submit(ask, mine) for mine in statuses]
            wait_for(lambda: all(len(mine) > 5 for mine in statuses))
            assert service.stop() == 0
            for one in asking:
                one.result()
        assert {status for mine in statuses for status in mine} == {200}
        assert not failures
        assert not [pid for pid in pids if is_running(pid)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_idle_service_ends_with_zero_and_no_orphan(number: signal.Signals) -> None:
    with run_service() as service:
        pids = service.list_pids()
        assert len(pids) >= 2
        assert service.stop(number) == 0
        assert not [pid for pid in pids if is_running(pid)]


def test_killed_supervisor_leaves_no_orphan() -> None:
    with run_service() as service:
        pids = service.list_pids()
        service.process.kill()
        wait_for(lambda: not any(is_running(pid) for pid in pids))


def is_running(pid: int) -> bool:
    """Whether that process runs; one that only waits to be buried does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_log_lines_carry_the_request_id_and_no_client_data(service: Service, client: httpx.Client) -> None:
    headers = {"x-request-id": "find-me-1"}
    client.post(URL, files={"img": ("secret-name.jpg", CAT)}, headers=headers).raise_for_status()
    wait_for(lambda: any(line.get("request_id") == "find-me-1" for line in service.log))
    (line,) = (line for line in service.log if line.get("request_id") == "find-me-1")
    assert (line["route"], line["code"], line["process"]) == (URL, "200", "frontend-0")
    assert "secret-name" not in json.dumps(service.log)
