"""What goes wrong with one image or one batch stays with it."""

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from models.engines.base import EngineError, OutOfMemory
from service.messages import Failure, Result
from service.types import ClassifyOptions
from service.worker.compute import EXIT_DEVICE_LOST
from tests.service.worker.parts import SumEngine
from tests.service.worker.running import CENTER, SIDE, RunningWorker, encode_png, make_image

MARK = np.full((SIDE, SIDE, 3), 255, np.uint8)


def refuse_large(views: NDArray[np.uint8]) -> None:
    if len(views) > 2:
        raise OutOfMemory("no room")


def refuse_all(views: NDArray[np.uint8]) -> None:
    raise OutOfMemory("no room")


def refuse_mark(views: NDArray[np.uint8]) -> None:
    if (views == MARK).all((1, 2, 3)).any():
        raise EngineError("a fault of the engine")


def ask(worker: RunningWorker, image: bytes, options: ClassifyOptions = CENTER) -> Result | Failure:
    frontend = worker.connect()
    frontend.send(1, image, options)
    return frontend.receive(1)


def test_batch_the_device_has_no_memory_for_is_halved() -> None:
    engine = SumEngine(refuse_large)
    with RunningWorker(engine) as worker:
        answer = ask(worker, make_image(0, side=48), ClassifyOptions(tta="ten_crop"))
        assert isinstance(answer, Result)
        assert max(engine.calls) > 2  # it was tried
        engine.calls.clear()
        assert isinstance(ask(worker, make_image(1, side=48), ClassifyOptions(tta="ten_crop")), Result)
        assert sum(engine.calls) == 10


def test_memory_lacking_for_one_view_is_an_overload() -> None:
    with RunningWorker(SumEngine(refuse_all)) as worker:
        answer = ask(worker, make_image(0))
    assert isinstance(answer, Failure)
    assert (answer.slug, answer.retry_after_s) == ("overloaded", 1.0)


def test_image_the_engine_fails_on_fails_alone() -> None:
    engine = SumEngine(refuse_mark)
    with RunningWorker(engine) as worker:
        frontend = worker.connect()
        for id in range(40):
            frontend.send(id, encode_png(MARK) if id == 20 else make_image(id))
        answers = [frontend.receive(id) for id in range(40)]
    failures = {answer.id: answer.slug for answer in answers if isinstance(answer, Failure)}
    assert failures == {20: "internal"}


@pytest.mark.parametrize(
    ("image", "options", "slug", "says"),
    [
        pytest.param(b"no image", CENTER, "unsupported-format", "first bytes", id="not an image"),
        pytest.param(make_image(0)[:200], CENTER, "broken-image", "PNG", id="cut short"),
        pytest.param(make_image(0, side=400), CENTER, "too-large", "SERVE_MAX_PIXELS", id="too many pixels"),
        pytest.param(make_image(0), ClassifyOptions(tta="all"), "bad-request", "center", id="unknown policy"),
        pytest.param(make_image(0), ClassifyOptions(top_k=11), "bad-request", "10 classes", id="top_k"),
        pytest.param(
            make_image(0), ClassifyOptions(wants_map=True, map_class=10), "bad-request", "0 to 9", id="class"
        ),
        pytest.param(make_image(0), ClassifyOptions(precision="int8"), "bad-request", "fp32", id="no int8"),
        pytest.param(
            make_image(0),
            ClassifyOptions(tta="multi_scale", scales=(1,)),
            "bad-request",
            "scale",
            id="scale out of range",
        ),
        pytest.param(
            make_image(0),
            ClassifyOptions(tta="center", scales=(256,)),
            "bad-request",
            "scales is for tta=multi_scale",
            id="scales of a policy without",
        ),
    ],
)
def test_refusal_says_whose_fault_it_is(image: bytes, options: ClassifyOptions, slug: str, says: str) -> None:
    with RunningWorker(SumEngine()) as worker:
        answer = ask(worker, image, options)
        assert isinstance(ask(worker, make_image(1)), Result)
    assert isinstance(answer, Failure)
    assert answer.slug == slug
    assert says in answer.detail
    assert (answer.field is None) == (slug != "bad-request")


def test_view_over_the_limit_is_too_large() -> None:
    wide = encode_png(np.zeros((8, 4000, 3), np.uint8))
    with RunningWorker(SumEngine()) as worker:
        answer = ask(worker, wide, ClassifyOptions(tta="multi_scale"))
    assert isinstance(answer, Failure)
    assert answer.slug == "too-large"


def test_int8_runs_on_its_own_engine() -> None:
    fp32, int8 = SumEngine(), SumEngine()
    with RunningWorker(fp32, extra={"int8": int8}) as worker:
        assert isinstance(ask(worker, make_image(0), ClassifyOptions(precision="int8", tta="center")), Result)
    assert (fp32.calls, int8.calls) == ([], [1])


LOSE_DEVICE = """
from models.engines.base import DeviceLost
from tests.service.worker.parts import SumEngine
from tests.service.worker.running import RunningWorker, make_image

def lose(views):
    raise DeviceLost("gone")

worker = RunningWorker(SumEngine(lose))
frontend = worker.connect()
frontend.send(1, make_image(0))
frontend.receive(1)
"""


def test_lost_device_ends_the_process() -> None:
    ended = subprocess.run([sys.executable, "-c", LOSE_DEVICE], check=False, capture_output=True, timeout=60)
    assert ended.returncode == EXIT_DEVICE_LOST
