"""The worker's threads at work, over its real frames: answers, order, cancelling, draining, slow readers."""

import io
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.views import list_policies
from service.board import Stage
from service.messages import Heartbeat, Result
from service.types import ClassifyOptions
from service.worker.serving import EXIT_ORPHANED
from tests.service.worker.parts import CLASSES, SumEngine
from tests.service.worker.running import CENTER, TIMEOUT_S, RunningWorker, encode_png, make_image

ALL_LOGITS = ClassifyOptions(tta="center", top_k=CLASSES, wants_logits=True)


class Gate:
    """Holds the engine until it is opened; `entered` says that a batch has reached it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._open = threading.Event()

    def __call__(self, views: NDArray[np.uint8]) -> None:
        self.entered.set()
        assert self._open.wait(TIMEOUT_S)

    def open(self) -> None:
        self._open.set()


def test_answer_ranks_the_classes() -> None:
    with RunningWorker(SumEngine()) as worker:
        frontend = worker.connect()
        frontend.send(7, make_image(0), ALL_LOGITS)
        answer = frontend.receive(7)
    assert isinstance(answer, Result)
    logits = answer.logits
    assert logits is not None
    assert answer.indices == sorted(range(CLASSES), key=lambda index: -logits[index])
    assert sum(answer.probabilities) == pytest.approx(1.0, abs=1e-5)
    assert (answer.tta_asked, answer.tta_used, answer.views) == ("center", "center", 1)


def test_scores_are_bitwise_the_same_in_any_company() -> None:
    policies = sorted(list_policies())
    images = [make_image(seed, side=40 + seed) for seed in range(24)]

    def ask(tta: str) -> ClassifyOptions:
        return replace(ALL_LOGITS, tta=tta)

    with RunningWorker(SumEngine()) as worker:
        frontend = worker.connect()
        alone = []
        for id, image in enumerate(images):
            frontend.send(id, image, ask(policies[id % len(policies)]))
            alone.append(frontend.receive(id))
        together = []
        for id, image in enumerate(images):
            frontend.send(100 + id, image, ask(policies[id % len(policies)]))
        together = [frontend.receive(100 + id) for id in range(len(images))]
    assert max(worker.batches.sizes) > 10  # they did share batches
    for one, other in zip(alone, together, strict=True):
        assert isinstance(one, Result)
        assert isinstance(other, Result)
        assert (one.logits, one.probabilities) == (other.logits, other.probabilities)


def test_five_best_of_fewer_classes_are_all_of_them() -> None:
    with RunningWorker(SumEngine(classes=3)) as worker:
        frontend = worker.connect()
        frontend.send(1, make_image(0), ClassifyOptions())
        answer = frontend.receive(1)
    assert isinstance(answer, Result)
    assert sorted(answer.indices) == [0, 1, 2]


def test_requests_of_two_frontends_are_answered_to_each() -> None:
    with RunningWorker(SumEngine()) as worker:
        one, other = worker.connect(), worker.connect()
        one.send(1, make_image(1), ALL_LOGITS)
        other.send(1, make_image(2), ALL_LOGITS)
        answers = [one.receive(1), other.receive(1)]
    assert all(isinstance(answer, Result) for answer in answers)
    assert answers[0] != answers[1]


def test_cancelled_request_never_reaches_the_engine() -> None:
    gate = Gate()
    engine = SumEngine(gate)
    with RunningWorker(engine, lanes=1) as worker:
        frontend = worker.connect()
        frontend.send(1, make_image(1))
        assert gate.entered.wait(TIMEOUT_S)
        for id in (2, 3, 4):
            frontend.send(id, make_image(id))
        for id in (2, 4):
            frontend.cancel(id)
        time.sleep(0.05)  # the frames travel; were they late, the counts below would be too high
        gate.open()
        frontend.receive(1)
        frontend.receive(3)
    assert sum(engine.calls) == 2


def test_image_given_up_in_the_same_breath_leaves_no_wait_behind() -> None:
    with RunningWorker(SumEngine()) as worker:
        frontend = worker.connect()
        for id in range(1, 50):
            frontend.send_and_cancel(id, make_image(0))
        frontend.send(50, make_image(0))
        frontend.receive(50)
        frontend.send(51, make_image(0))
        answer = frontend.receive(51)
    assert isinstance(answer, Result)
    assert answer.wait_ms == 0


def test_expired_request_is_told_so_and_never_reaches_the_engine() -> None:
    gate = Gate()
    engine = SumEngine(gate)
    with RunningWorker(engine, lanes=1) as worker:
        frontend = worker.connect()
        frontend.send(1, make_image(1))
        assert gate.entered.wait(TIMEOUT_S)
        frontend.send(2, make_image(2), deadline=time.monotonic() - 1)
        gate.open()
        answer = frontend.receive(2)
        frontend.receive(1)
    assert not isinstance(answer, Result)
    assert answer.slug == "deadline-passed"
    assert sum(engine.calls) == 1


def test_gone_frontend_frees_its_place() -> None:
    gate = Gate()
    engine = SumEngine(gate)
    with RunningWorker(engine, lanes=1) as worker:
        leaving, staying = worker.connect(), worker.connect()
        leaving.send(1, make_image(1))
        assert gate.entered.wait(TIMEOUT_S)
        for id in range(2, 10):
            leaving.send(id, make_image(id))
        leaving.socket.close()
        staying.send(1, make_image(1))
        time.sleep(0.05)
        gate.open()
        assert isinstance(staying.receive(1), Result)
    assert sum(engine.calls) == 2


def test_frontend_that_does_not_read_blocks_nobody() -> None:
    with RunningWorker(SumEngine()) as worker:
        deaf, other = worker.connect(), worker.connect()
        image = make_image(0)
        count = 8000  # answers of about 200 bytes: more than a socket takes, asked for by few bytes

        def send_all() -> None:
            for id in range(count):
                deaf.send(id, image, ALL_LOGITS)

        sender = threading.Thread(target=send_all)
        sender.start()
        for id in range(50):
            other.send(id, image)
            assert isinstance(other.receive(id), Result)
        sender.join(TIMEOUT_S)
        assert not sender.is_alive()
        for id in range(count):
            assert isinstance(deaf.receive(id), Result)


def test_drain_finishes_what_was_accepted() -> None:
    gate = Gate()
    with RunningWorker(SumEngine(gate)) as worker:
        frontend = worker.connect()
        for id in range(20):
            frontend.send(id, make_image(id))
        assert gate.entered.wait(TIMEOUT_S)
        worker.drain()
        frontend.send(20, make_image(20))  # sent before its frontend knew
        gate.open()
        answers = [frontend.receive(id) for id in range(21)]
        assert worker.wait() == 0
    assert all(isinstance(answer, Result) for answer in answers)


@pytest.mark.parametrize(
    "heard", [pytest.param(True, id="who heard all"), pytest.param(False, id="who did not")]
)
def test_worker_ends_when_the_supervisor_is_gone(heard: bool) -> None:
    worker = RunningWorker(SumEngine())
    if heard:
        assert isinstance(worker.hear(), Heartbeat)
    else:
        time.sleep(0.05)  # the first heartbeat comes at once
    worker.supervisor.close()
    assert worker.wait() == EXIT_ORPHANED
    worker.board.close()


def test_heart_beats() -> None:
    with RunningWorker(SumEngine()) as worker:
        assert isinstance(worker.hear(), Heartbeat)
        assert isinstance(worker.hear(), Heartbeat)


def test_frontends_without_answers_are_told_the_wait() -> None:
    gate = Gate()
    with RunningWorker(SumEngine(gate), lanes=1) as worker:
        idle, busy = worker.connect(), worker.connect()
        assert idle.receive_load().wait_ms == 0.0
        for id in range(200):
            busy.send(id, make_image(0))
        assert gate.entered.wait(TIMEOUT_S)
        assert idle.receive_load().wait_ms > 5.0
        gate.open()
        for id in range(200):
            busy.receive(id)
        while idle.loads[-1].wait_ms:
            idle.read()


def test_board_shows_the_image_a_lane_is_busy_with() -> None:
    gate = Gate()
    with RunningWorker(SumEngine(gate), lanes=1) as worker:
        frontend = worker.connect()
        frontend.send(42, make_image(0))
        assert gate.entered.wait(TIMEOUT_S)
        (state,) = worker.board.read()
        gate.open()
        frontend.receive(42)
    assert (state.stage, state.frontend, state.id) == (Stage.INFER, 0, 42)


def test_doubtful_image_is_looked_at_again() -> None:
    flat = SumEngine()
    with RunningWorker(flat) as worker:
        frontend = worker.connect()
        frontend.send(1, make_image(0, side=48), replace(CENTER, tta="adaptive"))
        answer = frontend.receive(1)
    assert isinstance(answer, Result)
    assert sum(flat.calls) == answer.views


def test_map_shows_where_the_class_is() -> None:
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[40:56, 60:76] = 255
    with RunningWorker(SumEngine()) as worker:
        frontend = worker.connect()
        frontend.send(1, encode_png(pixels), replace(CENTER, wants_map=True, map_class=3))
        answer = frontend.receive(1)
    assert isinstance(answer, Result)
    assert answer.map is not None
    left, top, right, bottom = answer.map.box
    assert left <= 68 <= right
    assert top <= 48 <= bottom
    assert (right - left) * (bottom - top) < 64 * 96 / 4
    assert answer.map.class_index == 3
    assert max(max(row) for row in answer.map.array) == 1.0
    assert Image.open(io.BytesIO(frontend.payloads[1])).size == (96, 64)


def test_without_a_map_the_engine_is_not_asked_for_features() -> None:
    engine = SumEngine()
    with RunningWorker(engine) as worker:
        frontend = worker.connect()
        frontend.send(1, make_image(0))
        answer = frontend.receive(1)
    assert isinstance(answer, Result)
    assert (answer.map, frontend.payloads[1]) == (None, b"")
    assert engine.asked_features == [False]
