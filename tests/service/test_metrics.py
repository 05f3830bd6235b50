"""Counters outlive the process that counted; one page tells of all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service.metrics.store import open_store, render_metrics

COUNT = """
import os, signal, sys
from pathlib import Path
from service.metrics import open_worker_metrics
metrics = open_worker_metrics(Path(sys.argv[1]), int(sys.argv[2]), "cifar10")
for _ in range(3):
    metrics.count_batch(4, 0.002)
os.kill(os.getpid(), signal.SIGKILL)
"""


def count_and_die(directory: Path, slot: int) -> None:
    """A process that counts three batches and is killed."""
    command = [sys.executable, "-c", COUNT, str(directory), str(slot)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


def test_counts_survive_a_kill_and_go_on_in_the_same_slot(tmp_path: Path) -> None:
    for slot in (0, 1, 0):
        count_and_die(tmp_path, slot)
    text = render_metrics(tmp_path).decode()
    assert 'resnet_batch_views_count{model="cifar10"} 9.0' in text
    assert 'resnet_batch_views_sum{model="cifar10"} 36.0' in text
    assert 'resnet_batches_total{model="cifar10",views="4"} 9.0' in text
    assert 'resnet_batch_seconds_bucket{le="0.0025",model="cifar10"} 9.0' in text
    assert {name.rpartition("_")[2] for name in os.listdir(tmp_path)} == {"worker-0.db", "worker-1.db"}


def test_slot_with_an_underscore_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="underscore"):
        open_store(tmp_path, "worker_0")


def test_a_file_that_is_only_just_made_counts_nothing(tmp_path: Path) -> None:
    count_and_die(tmp_path, 0)
    (tmp_path / "counter_worker-1.db").touch()
    assert 'resnet_batch_views_count{model="cifar10"} 3.0' in render_metrics(tmp_path).decode()


EXPECT = """
import sys
from pathlib import Path
from service.metrics import FrontendMetrics
metrics = FrontendMetrics(Path(sys.argv[1]), 0)
metrics.images.expect("cifar10")
metrics.pressure.expect("cifar10")
metrics.requests.count("/v1/classify", "http", "cifar10", "200")
if sys.argv[2:]:
    metrics.requests.count("/v1/classify", "http", "cifar10", "500")
    metrics.requests.count("/v1/batch", "grpc", "", "INTERNAL")
"""


@pytest.mark.parametrize("faults", [0, 1])
def test_what_alerts_count_is_there_before_its_first_time(tmp_path: Path, faults: int) -> None:
    subprocess.run([sys.executable, "-c", EXPECT, str(tmp_path), *["fault"] * faults], check=True)
    samples = dict(
        line.rsplit(" ", 1)
        for line in render_metrics(tmp_path).decode().splitlines()
        if not line.startswith("#")
    )
    assert samples['resnet_faults_total{protocol="http"}'] == f"{faults}.0"
    assert samples['resnet_faults_total{protocol="grpc"}'] == f"{faults}.0"
    for zero in (
        'resnet_images_total{model="cifar10",outcome="ok"}',
        'resnet_poison_total{model="cifar10"}',
        'resnet_rejected_total{model="",reason="bytes"}',
        'resnet_rejected_total{model="cifar10",reason="no_worker"}',
        'resnet_rejected_total{model="cifar10",reason="wait"}',
        'resnet_resent_total{model="cifar10"}',
    ):
        assert samples[zero] == "0.0"


ANSWER = """
import sys
from pathlib import Path
from service.metrics import FrontendMetrics
from service.types import Classification, ModelRef, Prediction, Timings, TtaUse
metrics = FrontendMetrics(Path(sys.argv[1]), 0)
answers = [
    Classification(
        "id",
        ModelRef("cifar10", 1, "0"),
        (Prediction(0, label, probability),),
        TtaUse("center", tta, views),
        Timings(milliseconds, 2.0, 4.0, 1024.0),
    )
    for label, probability, tta, views, milliseconds in [
        ("cat", 0.5, "center", 1, 0.25), ("cat", 1.0, "mirror", 2, 5.0), ("dog", 0.25, "mirror", 2, 100_000.0)
    ]
]
if sys.argv[2] == "together":
    metrics.images.count_answers(answers)
else:
    for answer in answers:
        metrics.images.count_answer(answer)
"""


def test_answers_counted_together_are_counted_as_one_by_one(tmp_path: Path) -> None:
    pages = []
    for how in ("alone", "together"):
        (tmp_path / how).mkdir()
        subprocess.run([sys.executable, "-c", ANSWER, str(tmp_path / how), how], check=True)
        page = render_metrics(tmp_path / how).decode().splitlines()
        pages.append([line for line in page if "_timestamp_" not in line])
    assert pages[0] == pages[1]
    assert 'resnet_images_total{model="cifar10",outcome="ok"} 3.0' in pages[0]
    assert sum('le="+Inf"' in line and line.endswith(" 3.0") for line in pages[0]) == 5


TALLY = """
import sys
from pathlib import Path
from service.metrics import FrontendMetrics
from service.types import Classification, ModelRef, Prediction, Timings, TtaUse
turn = []
metrics = FrontendMetrics(Path(sys.argv[1]), 0, turn.append)
for model, label in [("cifar10", "cat"), ("photos", "cat"), ("cifar10", "dog"), ("cifar10", "cat")]:
    answer = Classification(
        "id", ModelRef(model, 1, "0"), (Prediction(0, label, 0.5),), TtaUse("mirror", "mirror", 2),
        Timings(1.0, 2.0, 4.0, 8.0),
    )
    metrics.tally.count_answer(answer)
    metrics.tally.count_request("/v1/classify", "http", model, "200")
metrics.tally.count_request("/v1/classify", "http", "cifar10", "500")
assert len(turn) == 1, turn
if sys.argv[2] == "whole":
    turn[0]()
"""


@pytest.mark.parametrize("turn", ["half", "whole"])
def test_a_turn_of_the_loop_is_counted_at_its_end(tmp_path: Path, turn: str) -> None:
    subprocess.run([sys.executable, "-c", TALLY, str(tmp_path), turn], check=True)
    page = render_metrics(tmp_path).decode().splitlines()
    counted = {
        'resnet_images_total{model="cifar10",outcome="ok"} 3.0',
        'resnet_images_total{model="photos",outcome="ok"} 1.0',
        'resnet_top_predictions_total{label="cat",model="cifar10"} 2.0',
        'resnet_top_predictions_total{label="cat",model="photos"} 1.0',
        'resnet_views_total{model="cifar10",tta="mirror"} 6.0',
        'resnet_total_seconds_sum{model="cifar10"} 0.024',
        'resnet_requests_total{code="200",model="cifar10",protocol="http",route="/v1/classify"} 3.0',
        'resnet_requests_total{code="500",model="cifar10",protocol="http",route="/v1/classify"} 1.0',
        'resnet_faults_total{protocol="http"} 1.0',
    }
    assert counted & set(page) == (counted if turn == "whole" else set())


OBSERVE = """
import sys
from pathlib import Path
from prometheus_client import Histogram
from service.metrics.images import _observe_one
from service.metrics.buckets import SECONDS
from service.metrics.store import open_store
open_store(Path(sys.argv[1]), "a")
ours, theirs = [Histogram(name, "", buckets=SECONDS, registry=None) for name in ("ours", "theirs")]
for value in (0.0, 1e-9, *SECONDS, 0.0123, 1e9):
    _observe_one(ours, value)
    theirs.observe(value)
"""


def test_what_is_observed_is_what_the_library_would(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", OBSERVE, str(tmp_path)], check=True)
    page = render_metrics(tmp_path).decode().splitlines()
    ours, theirs = (
        [line.replace(name, "") for line in page if line.startswith(f"{name}_")]
        for name in ("ours", "theirs")
    )
    assert len(ours) > 10
    assert ours == theirs
