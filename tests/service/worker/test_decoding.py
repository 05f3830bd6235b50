"""Decoding in processes of their own: the same pixels, and only the image that kills one is blamed."""

import io
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.decode import BrokenImage, DecodeLimits, TooManyPixels, UnsupportedFormat, decode_image
from models.decode.header import Pixels
from service.errors import DeadlinePassed, PoisonImage
from service.worker.decoding import DecoderProcesses
from tests.service.frontends import wait_for
from tests.serving import run_service

DATA = Path(__file__).resolve().parents[2] / "data"
CAT = (DATA / "cat.jpg").read_bytes()
LIMITS = DecodeLimits()


def make_png(side: int) -> bytes:
    """A noisy grey image that takes a while to decode."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


LARGE = make_png(3_000)


def list_children(pid: int) -> list[int]:
    """The process ids of a process's living children."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


def is_decoder(pid: int) -> bool:
    return b"service.worker.decoder" in Path(f"/proc/{pid}/cmdline").read_bytes()


def find_decoders() -> set[int]:
    """This process's decoders."""
    return {pid for pid in list_children(os.getpid()) if is_decoder(pid)}


def find_decoder() -> int:
    """The only one."""
    wait_for(lambda: len(find_decoders()) == 1)
    (decoder,) = find_decoders()
    return decoder


@pytest.fixture(name="pool")
def make_pool() -> Iterator[DecoderProcesses]:
    """One decoder process."""
    pool = DecoderProcesses(1, 1_000_000_000)
    yield pool
    pool.close()


def decode(pool: DecoderProcesses, image: bytes, patience_s: float = 60) -> Pixels:
    """The pixels `pool` makes of `image`."""
    return pool.decode(image, LIMITS, None, time.monotonic() + patience_s).pixels


@pytest.mark.parametrize("image", [CAT, LARGE], ids=["photograph", "large"])
def test_pixels_are_those_of_decoding_inline(pool: DecoderProcesses, image: bytes) -> None:
    assert np.array_equal(decode(pool, image), decode_image(image, LIMITS).pixels)


@pytest.mark.parametrize(
    ("image", "limits", "error"),
    [
        (CAT[:1000], LIMITS, BrokenImage),
        (b"no image", LIMITS, UnsupportedFormat),
        (CAT, DecodeLimits(max_pixels=10), TooManyPixels),
    ],
    ids=["cut off", "no image", "too many pixels"],
)
def test_refusals_are_those_of_decoding_inline(
    pool: DecoderProcesses, image: bytes, limits: DecodeLimits, error: type[Exception]
) -> None:
    with pytest.raises(error) as inline:
        decode_image(image, limits)
    with pytest.raises(error) as beside:
        pool.decode(image, limits, None, time.monotonic() + 60)
    assert str(beside.value) == str(inline.value)
    assert decode(pool, CAT).size


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_image_whose_decoder_dies_is_decoded_by_the_next(
    pool: DecoderProcesses, number: signal.Signals
) -> None:
    victim = find_decoder()
    os.kill(victim, signal.SIGSTOP)
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(decode, pool, LARGE)
        os.kill(victim, number)
        os.kill(victim, signal.SIGCONT)
        assert np.array_equal(waiting.result(), decode_image(LARGE, LIMITS).pixels)
    assert victim not in find_decoders()


def test_image_that_ends_two_decoders_is_poison_and_the_next_is_not() -> None:
    pool = DecoderProcesses(1, 24_000_000)
    before = find_decoder()
    with pytest.raises(PoisonImage):
        decode(pool, LARGE)
    assert find_decoder() != before
    assert decode(pool, CAT).size
    pool.close()
    assert not find_decoders()


def test_decoder_that_hangs_is_ended_at_the_deadline(pool: DecoderProcesses) -> None:
    victim = find_decoder()
    os.kill(victim, signal.SIGSTOP)
    with pytest.raises(DeadlinePassed):
        decode(pool, CAT, 0.2)
    assert victim not in find_decoders()
    assert decode(pool, CAT).size


def test_service_loses_no_worker_with_its_decoders() -> None:
    with run_service(decode_in="processes") as service:
        (worker,) = [
            one["pid"] for one in service.get_json("/v1/status")["children"] if one["role"] == "worker"
        ]
        first = service.post_image(CAT)
        decoders = [pid for pid in list_children(worker) if is_decoder(pid)]
        assert decoders
        for pid in decoders:
            os.kill(pid, signal.SIGKILL)
        again = service.post_image(CAT)
        assert again["predictions"] == first["predictions"]
        assert again["predictions"][0]["label"] == "cat"
        decoders += [pid for pid in list_children(worker) if is_decoder(pid)]
        assert worker in service.list_pids()
        assert service.stop() == 0
    assert not [pid for pid in decoders if Path(f"/proc/{pid}").exists()]
