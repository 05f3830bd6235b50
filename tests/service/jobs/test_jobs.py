"""Durable jobs through a real frontend and a real runner, either of which may be killed."""

import importlib.util
import io
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.jobs.store import JobStore
from service.messages import Classify
from tests.service.frontends import Answers, RunningFrontend
from tests.service.jobs.bodies import make_multipart, make_tar, make_zip
from tests.service.jobs.runners import (
    ASYNC,
    RunningRunner,
    answer_by_content,
    run_batches,
    wait_status,
    wait_until,
)

FILES = {f"{number:03}.png": f"image {number}".encode() for number in range(300)}
FILES["007.png"] = b"broken"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


@pytest.fixture
def frontend(folder: Path, tmp_path: Path) -> Iterator[RunningFrontend]:
    roots = {"batch_roots": f"file://{tmp_path}/allowed,memory://bucket/a"}
    with run_batches(folder, **roots) as frontend:
        frontend.add_worker(0, answer_by_content)
        yield frontend


@pytest.fixture
def client(frontend: RunningFrontend) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=frontend.url, timeout=30.0) as client:
        yield client


@pytest.fixture
def runner(frontend: RunningFrontend) -> Iterator[RunningRunner]:
    runner = RunningRunner(frontend.directory, frontend.settings)
    yield runner
    runner.kill()


def submit(client: httpx.Client, body: bytes, query: str = "", **headers: str) -> httpx.Response:
    return client.post(f"/v1/batch{query}", content=body, headers=ASYNC | headers)


def read_results(client: httpx.Client, location: str) -> list[dict[str, Any]]:
    text = client.get(f"{location}/results").raise_for_status().text
    return [json.loads(line) for line in text.splitlines()]


def check_whole(lines: list[dict[str, Any]], client: httpx.Client) -> None:
    """Exactly one line for each of FILES, in order, and as POST /v1/batch answers at once."""
    online = client.post("/v1/batch", content=make_zip(FILES)).raise_for_status().text
    assert lines == [json.loads(line) for line in online.splitlines()]
    assert [line["id"] for line in lines] == list(FILES)


def test_job_ends_with_what_the_online_answer_says(client: httpx.Client, runner: RunningRunner) -> None:
    runner.add_worker()
    response = submit(client, make_zip(FILES))
    assert response.status_code == 202
    assert response.headers["preference-applied"] == "respond-async"
    location = response.headers["location"]
    assert location == f"/v1/batch/{response.json()['id']}"
    assert len(response.json()["id"]) == 32
    job = wait_status(client, location, "done")
    assert job["counts"] == {"total": 300, "done": 299, "failed": 1}
    assert job["eta_s"] == 0
    check_whole(read_results(client, location), client)


def ask_duckdb(query: str) -> dict[str, int]:
    """The rows of a query, in a process of its own: DuckDB's bindings complain about leaks as they end."""
    code = "import duckdb, json, sys; print(json.dumps(duckdb.sql(sys.argv[1]).fetchall()))"
    done = subprocess.run([sys.executable, "-c", code, query], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def test_results_are_read_by_the_tools_people_use(
    client: httpx.Client, runner: RunningRunner, tmp_path: Path
) -> None:
    pandas = pytest.importorskip("pandas")
    if importlib.util.find_spec("duckdb") is None:
        pytest.skip("needs duckdb")
    runner.add_worker()
    location = submit(client, make_zip(FILES)).headers["location"]
    wait_status(client, location, "done")
    lines = read_results(client, location)
    best = [line["predictions"][0]["label"] if "predictions" in line else None for line in lines]
    for form in ("csv", "parquet"):
        response = client.get(f"{location}/results?format={form}").raise_for_status()
        (tmp_path / f"preds.{form}").write_bytes(response.content)
        read = pandas.read_csv if form == "csv" else pandas.read_parquet
        frame = read(io.BytesIO(response.content))
        assert list(frame["id"]) == list(FILES)
        assert [label if isinstance(label, str) else None for label in frame["label"]] == best
        assert list(frame["error"].dropna()) == ["broken-image"]
        query = f"select label, count(*) from '{tmp_path}/preds.{form}' where label is not null group by 1"
        assert ask_duckdb(query) == {label: best.count(label) for label in set(best) - {None}}
    assert list(frame["predictions"][0][0]) == ["index", "label", "probability"]


def test_results_so_far_are_there_while_it_runs(client: httpx.Client, runner: RunningRunner) -> None:
    def hold_end(message: Classify, image: bytes) -> Answers:
        return [] if image == b"image 200" else answer_by_content(message, image)

    runner.add_worker(hold_end)
    location = submit(client, make_zip(FILES)).headers["location"]
    wait_until(lambda: len(read_results(client, location)) == 200)
    job = client.get(location).json()
    assert (job["status"], job["counts"]) == ("running", {"total": 300, "done": 199, "failed": 1})
    assert len(client.get(f"{location}/results", headers={"Accept": "text/csv"}).text.splitlines()) == 201


def test_cancel_keeps_what_is_done_and_a_second_delete_forgets(
    client: httpx.Client, runner: RunningRunner, folder: Path
) -> None:
    runner.add_worker(
        lambda message, image: [] if image == b"image 100" else answer_by_content(message, image)
    )
    location = submit(client, make_zip(FILES)).headers["location"]
    wait_until(lambda: len(read_results(client, location)) == 100)
    assert client.delete(location).status_code == 202
    job = wait_status(client, location, "cancelled")
    assert job["counts"]["done"] + job["counts"]["failed"] == 100
    assert len(read_results(client, location)) == 100
    wait_until(lambda: len(runner.workers[0].cancelled) > 0)
    wait_until(lambda: sorted(path.name for path in (folder / job["id"]).iterdir()) == ["results.ndjson"])
    assert client.delete(location).status_code == 204
    assert client.get(location).status_code == 404
    assert not (folder / job["id"]).exists()


def test_a_job_nobody_runs_yet_can_be_cancelled(client: httpx.Client, frontend: RunningFrontend) -> None:
    location = submit(client, make_zip(FILES)).headers["location"]
    assert client.get(location).json()["status"] == "queued"
    client.delete(location)
    runner = RunningRunner(frontend.directory, frontend.settings)
    try:
        assert wait_status(client, location, "cancelled")["counts"]["done"] == 0
        assert read_results(client, location) == []
    finally:
        runner.kill()


def test_an_idempotency_key_makes_a_retry_the_same_job(client: httpx.Client, folder: Path) -> None:
    key = {"Idempotency-Key": "mine"}
    first = submit(client, make_zip(FILES), **key).json()["id"]
    form = {"Content-Type": "multipart/form-data; boundary=xyz"}
    again = [
        submit(client, make_tar(FILES), **key),
        submit(client, make_multipart(list(FILES.items())), **key, **form),
    ]
    assert [(one.status_code, one.json()["id"]) for one in again] == [(202, first)] * 2
    assert [path.name for path in folder.iterdir() if path.is_dir()] == [first]
    for other in (
        submit(client, make_zip(FILES | {"x": b"y"}), **key),
        submit(client, make_zip(FILES), "?top_k=2", **key),
    ):
        assert (other.status_code, other.json()["type"]) == (409, "conflict")
    assert submit(client, make_zip(FILES)).json()["id"] != first
    assert len(list(folder.glob("*/images"))) == 2


@pytest.mark.parametrize("id", ["0" * 32, "..", "x" * 3000, "%00"], ids=["unknown", "parent", "long", "zero"])
def test_unknown_jobs_are_not_found(id: str, client: httpx.Client) -> None:
    for response in (client.get(f"/v1/batch/{id}"), client.delete(f"/v1/batch/{id}")):
        assert response.status_code in (404, 405)


# --- deaths ---


def test_kill_at_any_moment_loses_and_repeats_nothing(folder: Path) -> None:
    chance = random.Random(6)
    computed: list[bytes] = []
    durable: list[int] = []

    def slow(message: Classify, image: bytes) -> Answers:
        time.sleep(0.002)
        computed.append(image)
        return answer_by_content(message, image)

    with run_batches(folder) as frontend, httpx.Client(base_url=frontend.url) as client:
        frontend.add_worker(0, answer_by_content)
        location = submit(client, make_zip(FILES)).headers["location"]
        for _ in range(6):
            runner = RunningRunner(frontend.directory, frontend.settings)
            runner.add_worker(slow)
            time.sleep(chance.uniform(0.0, 0.25))
            runner.kill()
            durable.append(len(read_results(client, location)))
            again = [image for image in computed if image in list(FILES.values())[: durable[-1]]]
            assert len(again) == len(set(again)) or durable[-1] == 0
            computed.clear()
        runner = RunningRunner(frontend.directory, frontend.settings)
        runner.add_worker(slow)
        wait_status(client, location, "done")
        runner.kill()
        assert durable == sorted(durable)
        check_whole(read_results(client, location), client)


def test_job_survives_the_death_of_the_frontend_that_took_it(folder: Path) -> None:
    with run_batches(folder) as frontend, httpx.Client(base_url=frontend.url) as client:
        frontend.add_worker(0, answer_by_content)
        location = submit(client, make_zip(FILES)).headers["location"]
    with run_batches(folder) as frontend, httpx.Client(base_url=frontend.url) as client:
        frontend.add_worker(0, answer_by_content)
        runner = RunningRunner(frontend.directory, frontend.settings)
        runner.add_worker()
        wait_status(client, location, "done")
        runner.kill()
        check_whole(read_results(client, location), client)


def test_lines_that_reached_the_disk_but_not_the_store_are_kept(
    client: httpx.Client, frontend: RunningFrontend, folder: Path
) -> None:
    location = submit(client, make_zip(FILES)).headers["location"]
    id = location.rpartition("/")[2]
    online = client.post("/v1/batch", content=make_zip(FILES)).text.splitlines(keepends=True)
    torn = "".join(online[:50]) + online[50][:20]
    (folder / id / "results.ndjson").write_text(torn, encoding="utf-8")
    runner = RunningRunner(frontend.directory, frontend.settings)
    try:
        worker = runner.add_worker()
        wait_status(client, location, "done")
        assert len(worker.received) == 250
        check_whole(read_results(client, location), client)
    finally:
        runner.kill()


def test_without_a_worker_a_job_pauses_with_its_reason_and_goes_on(
    client: httpx.Client, frontend: RunningFrontend
) -> None:
    location = submit(client, make_zip(FILES)).headers["location"]
    runner = RunningRunner(frontend.directory, frontend.settings)
    try:
        job = wait_status(client, location, "paused")
        assert " up" in job["reason"]
        runner.add_worker()
        assert wait_status(client, location, "done")["reason"] is None
        check_whole(read_results(client, location), client)
    finally:
        runner.kill()


def test_one_runner_at_a_time_works_in_a_folder(
    client: httpx.Client, frontend: RunningFrontend, runner: RunningRunner
) -> None:
    runner.add_worker(lambda *_: [])
    location = submit(client, make_zip(FILES)).headers["location"]
    wait_until(lambda: len(runner.workers[0].received) > 0)
    second = RunningRunner(frontend.directory, frontend.settings)
    try:
        worker = second.add_worker()
        time.sleep(1.0)
        assert worker.received == []
        runner.kill()
        wait_status(client, location, "done")
        check_whole(read_results(client, location), client)
    finally:
        second.kill()


# --- sources ---


def test_an_allowed_folder_is_scored_where_it_lies(
    client: httpx.Client, runner: RunningRunner, tmp_path: Path
) -> None:
    source = tmp_path / "allowed" / "a"
    (source / "b").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"secret")
    for name in ("2.png", "1.jpg", "b/3.webp", "notes.txt"):
        (source / name).write_bytes(name.encode())
    (source / "link.png").symlink_to(tmp_path / "secret.png")
    (source / "inner.png").symlink_to("1.jpg")
    os.mkfifo(source / "pipe.png")
    runner.add_worker()
    response = client.post("/v1/batch", json={"source": f"file://{source}"}, headers=ASYNC)
    assert response.status_code == 202
    job = wait_status(client, response.headers["location"], "done")
    assert job["counts"] == {"total": 6, "done": 4, "failed": 2}
    lines = read_results(client, response.headers["location"])
    assert [line["id"] for line in lines] == [
        "1.jpg",
        "2.png",
        "b/3.webp",
        "inner.png",
        "link.png",
        "pipe.png",
    ]
    assert [line.get("error", {}).get("type") for line in lines][-2:] == ["forbidden", "forbidden"]
    sent = {image for _, image in runner.workers[0].received}
    assert sent == {b"1.jpg", b"2.png", b"b/3.webp"}


@pytest.mark.parametrize(
    ("source", "status"),
    [
        pytest.param("file:///etc", 403, id="another folder"),
        pytest.param("file://{tmp}/allowed-not", 403, id="a name that begins alike"),
        pytest.param("file://{tmp}/allowed/../jobs", 400, id="parent"),
        pytest.param("file://{tmp}/allowed/link", 403, id="a link that leaves"),
        pytest.param("memory://bucket/b", 403, id="another prefix"),
        pytest.param("http://127.0.0.1/", 400, id="http"),
        pytest.param("simplecache::s3://bucket/a", 400, id="a chain"),
        pytest.param("zip://a.zip::file://{tmp}/allowed", 400, id="a chain through an archive"),
        pytest.param("s3://key:secret@bucket/a", 400, id="credentials"),
        pytest.param("allowed", 400, id="no URL"),
    ],
)
def test_any_other_source_is_refused(source: str, status: int, client: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "link").symlink_to("/etc")
    url = source.replace("{tmp}", str(tmp_path))
    response = client.post("/v1/batch", json={"source": url}, headers=ASYNC)
    assert response.status_code == status, response.text


def test_a_folder_that_is_gone_fails_the_job_with_its_reason(
    client: httpx.Client, runner: RunningRunner, tmp_path: Path
) -> None:
    (tmp_path / "allowed").mkdir()
    url = f"file://{tmp_path}/allowed/none"
    response = client.post("/v1/batch", json={"source": url}, headers=ASYNC)
    job = wait_status(client, response.headers["location"], "failed")
    assert job["reason"] == "the source is not a folder"


def test_options_are_kept_with_the_job(client: httpx.Client, runner: RunningRunner, folder: Path) -> None:
    worker = runner.add_worker()
    location = submit(client, make_tar({"a": b"1"}), "?top_k=2&tta=flip").headers["location"]
    wait_status(client, location, "done")
    options = worker.received[0][0].options
    assert (options.top_k, options.tta, options.priority) == (2, "flip", "bulk")
    assert len(JobStore(folder).list_ids()) == 1
