"""Parts of durable jobs on their own: the window, the store, full disks, leftovers, object stores."""

import asyncio
import os
import resource
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest
from sqlalchemy.exc import OperationalError

from service.errors import Forbidden, NotFound, StorageFull, TooLarge
from service.flights import Landings
from service.jobs.folder import JobFolder
from service.jobs.results import RESULTS, Progress, ResultsFile, line_decoder
from service.jobs.run import Bench, JobRun
from service.jobs.runner import sweep
from service.jobs.sources import Location, find_location, open_source, parse_roots
from service.jobs.spool import Spool, SpoolLimits
from service.jobs.storage import BALLAST, BALLAST_BYTES, Storage
from service.jobs.store import Job, KeyTaken, open_store
from service.jobs.window import Window, WindowLimits
from service.settings import BadSettings, load_settings
from service.types import (
    Classification,
    ClassifyOptions,
    ClassifyRequest,
    ModelRef,
    Prediction,
    Timings,
    TtaUse,
)

LIMITS = SpoolLimits(1 << 20, 1_000, 1 << 20)
OPTIONS = msgspec.json.encode(ClassifyOptions(priority="bulk"))


class ByFirstByte:
    """Answers class 0, with the image's first byte as a probability."""

    async def classify_slice(self, requests: Sequence[ClassifyRequest]) -> AsyncGenerator[Landings, None]:
        """See SliceClassifier."""
        for number, request in enumerate(requests):
            await asyncio.sleep(0)
            yield [(number, answer(request))]

    def count_slice(self, _: ClassifyOptions) -> int:
        """See SliceClassifier."""
        return 3


def answer(request: ClassifyRequest) -> Classification:
    ranked = (Prediction(0, "cat", request.image[0] / 255),)
    times = Timings(0.0, 0.0, 0.0, 0.0)
    return Classification(
        request.request_id, ModelRef("m", 1, ""), ranked, TtaUse("center", "center", 1), times
    )


# --- the window ---


Answered = AsyncGenerator[list[tuple[int, int]], None]


async def count_to(end: int, together: int = 1) -> AsyncIterator[list[int]]:
    for start in range(0, end, together):
        yield list(range(start, min(end, start + together)))


async def take_all(window: Window[int, int]) -> list[int]:
    answers: list[int] = []
    while taken := await window.take(7):
        answers += taken
    return answers


def test_window_gives_answers_in_order_and_stays_within_its_bounds() -> None:
    running = most = furthest = 0

    async def call(numbers: Sequence[int]) -> Answered:
        nonlocal running, most, furthest
        running += 1
        most, furthest = max(most, running), max(furthest, *numbers)
        for place in reversed(range(len(numbers))):  # the last comes first
            await asyncio.sleep(0.02 if numbers[place] == 0 else 0.0)
            yield [(place, numbers[place] * numbers[place])]
        running -= 1

    async def run() -> list[int]:
        limits = WindowLimits(at_once=4, ahead=9)
        async with Window(count_to(50, 3), call, len, limits) as window:
            first = await window.take(1)
            assert furthest <= 11  # the first one is slow; no more than this run ahead of it
            return first + await take_all(window)

    assert asyncio.run(run()) == [number * number for number in range(50)]
    assert most <= 4


def test_window_gives_an_answer_before_its_neighbours_have_theirs() -> None:
    async def run() -> None:
        done = asyncio.Event()

        async def call(numbers: Sequence[int]) -> Answered:
            yield [(0, 10)]
            await done.wait()
            yield [(place, 10 + number) for place, number in enumerate(numbers) if place]

        async with Window(count_to(4, 4), call, len, WindowLimits()) as window:
            assert await window.take(9) == [10]
            done.set()
            assert await take_all(window) == [11, 12, 13]

    asyncio.run(run())


def test_window_holds_no_more_bytes_than_it_may() -> None:
    held = most = 0

    async def call(sizes: Sequence[int]) -> Answered:
        nonlocal held, most
        held += sizes[0]
        most = max(most, held)
        await asyncio.sleep(0.001)
        held -= sizes[0]
        yield [(0, sizes[0])]

    async def run() -> int:
        async with Window(count_to(60), call, sum, WindowLimits(held_bytes=100)) as window:
            return len(await take_all(window))

    assert asyncio.run(run()) == 60
    assert most < 100 + 60  # one image may step over the line


def test_window_raises_what_a_call_raises_and_stops_the_rest() -> None:
    cancelled = 0

    async def call(numbers: Sequence[int]) -> Answered:
        nonlocal cancelled
        if numbers[0] == 3:
            raise KeyError(numbers[0])
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled += 1
            raise
        yield [(0, numbers[0])]

    async def run() -> None:
        async with Window(count_to(9), call, len, WindowLimits(at_once=4)) as window:
            await window.take(1)

    with pytest.raises(KeyError):
        asyncio.run(run())
    assert cancelled == 3


# --- the store and the disk ---


def make_job(folder: JobFolder, images: list[bytes]) -> Job:
    spool = Spool(folder.path, LIMITS, lambda _: None)
    for number, image in enumerate(images):
        spool.begin(f"{number}.png")
        spool.write(image)
        spool.end()
    digest = spool.finish(durable=True)
    return Job(
        folder.id, OPTIONS, time.time(), total=len(images), spool_bytes=spool.size_bytes, digest=digest
    )


def test_a_full_disk_pauses_a_job_with_its_reason_and_then_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.jobs.run.PAUSE_S", 0.02)
    free_bytes = 0
    store = open_store(tmp_path)
    storage = Storage(tmp_path, 1 << 30, 1_000, store.count_bytes, lambda _: free_bytes)
    folder = JobFolder.create(tmp_path)
    job = make_job(folder, [bytes([number]) for number in range(100)])
    store.add(job)

    async def run() -> None:
        nonlocal free_bytes
        bench = Bench(load_settings({}, {}), store, storage, ByFirstByte(), tmp_path)
        running = asyncio.create_task(JobRun(job, bench).run())
        while (found := store.find(job.id)) is None or found.status != "paused":  # noqa: ASYNC110  # a file
            await asyncio.sleep(0.01)
        assert "SERVE_JOBS_RESERVE_BYTES" in found.reason
        assert found.lines == 0
        free_bytes = 1 << 30
        await asyncio.wait_for(running, 20)

    asyncio.run(run())
    found = store.find(job.id)
    assert found is not None
    assert (found.status, found.done, found.reason) == ("running", 100, "")
    lines = [line_decoder.decode(line) for line in (folder.path / RESULTS).read_bytes().splitlines()]
    assert [line.index for line in lines] == list(range(100))
    store.close()


def test_a_really_full_disk_leaves_room_for_one_more_word(tmp_path: Path) -> None:
    """Between the first refusal and the last the store may write once more."""
    storage = Storage(tmp_path, 1 << 30, 1_000, lambda: 0)
    storage.fill_ballast()
    assert (tmp_path / BALLAST).stat().st_blocks * 512 >= BALLAST_BYTES
    written: list[int] = []

    def write() -> None:
        if (tmp_path / BALLAST).exists() or written:
            raise OperationalError("database or disk is full", None, OSError())
        written.append(1)

    storage.write_store(write)
    assert written == [1]
    with pytest.raises(OperationalError):
        storage.write_store(write)


def test_results_shorter_than_the_store_says_are_counted_anew(tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_bytes(b'{"index":0,"id":"a","predictions":[]}\n{"index":1,"id"')
    results = ResultsFile(tmp_path)
    found = results.recover(Progress(done=7, failed=1, size_bytes=4_000))
    assert (found.done, found.failed) == (1, 0)
    assert (tmp_path / RESULTS).stat().st_size == found.size_bytes
    results.close()


def test_a_write_to_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    results = ResultsFile(tmp_path)
    results.write(0, b"x" * 100)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (150, hard)
    )  # the kernel refuses what is beyond, as a full disk
    try:
        with pytest.raises(StorageFull):
            results.write(100, b"y" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / RESULTS).read_bytes() == b"x" * 100
    results.write(100, b"y" * 100)
    assert (tmp_path / RESULTS).stat().st_size == 200
    results.close()


def test_quota_counts_what_jobs_hold(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    storage = Storage(tmp_path, 1_000, 0, store.count_bytes)
    storage.check_room(1_000)
    store.add(Job("a", OPTIONS, 0.0, spool_bytes=400))
    store.change("a", results_bytes=200)
    storage.check_room(400)
    with pytest.raises(StorageFull, match="SERVE_JOBS_QUOTA_BYTES"):
        storage.check_room(401)
    store.finish("a", "done")
    storage.check_room(800)
    store.close()


def test_an_idempotency_key_belongs_to_its_caller(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.add(Job("a", OPTIONS, 0.0, caller="one", key="k"))
    store.add(Job("b", OPTIONS, 0.0, caller="two", key="k"))
    store.add(Job("c", OPTIONS, 0.0, caller="one"))
    store.add(Job("d", OPTIONS, 0.0, caller="one"))
    with pytest.raises(KeyTaken) as caught:
        store.add(Job("e", OPTIONS, 0.0, caller="one", key="k"))
    assert caught.value.job.id == "a"
    store.close()


def test_sweep_removes_old_jobs_and_leftovers_and_nothing_else(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    folders = {
        name: JobFolder.create(tmp_path) for name in ("old", "kept", "open", "leftover", "held", "fresh")
    }
    for name in ("old", "kept", "open"):
        store.add(make_job(folders[name], [b"x"]))
    for name, age_s in (("old", 200.0), ("kept", 50.0)):
        store.change(folders[name].id, status="done", finished=time.time() - age_s)
    for name, folder in folders.items():
        if name != "held":
            folder.release()
        if name != "fresh":
            os.utime(folder.path, (0, 0))
    sweep(store, tmp_path, retention_s=100.0)
    left = {name for name, folder in folders.items() if folder.path.exists()}
    assert left == {"kept", "open", "held", "fresh"}
    assert store.list_ids() == {folders["kept"].id, folders["open"].id}
    assert [path.name for path in folders["kept"].path.iterdir()] == []  # its images are not needed any more
    assert len(list(folders["open"].path.iterdir())) == 2
    store.close()


# --- object stores ---


def test_a_store_is_read_below_the_allowed_prefix_alone() -> None:
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for path in ("/bucket/a/1.png", "/bucket/a/b/2.jpg", "/bucket/a/notes.txt", "/bucket/ab/3.png"):
        store.pipe(path, path.encode())
    roots = parse_roots("memory://bucket/a")
    source = open_source(find_location("memory://bucket/a", roots))
    assert [(file.name, file.size_bytes) for file in source.list()] == [("1.png", 15), ("b/2.jpg", 17)]
    assert source.read("b/2.jpg", 100) == b"/bucket/a/b/2.jpg"
    with pytest.raises(TooLarge):
        source.read("1.png", 10)
    with pytest.raises(NotFound):
        source.read("4.png", 10)
    with pytest.raises(Forbidden):
        find_location("memory://bucket/ab", roots)
    with pytest.raises(NotFound):
        list(open_source(Location("memory", "bucket/none")).list())


def test_roots_that_are_no_urls_are_refused_at_start() -> None:
    with pytest.raises(BadSettings, match="SERVE_BATCH_ROOTS"):
        parse_roots("/data")
