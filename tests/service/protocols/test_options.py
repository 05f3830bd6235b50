"""Parameters by their public names: what is taken, what is refused and by which name."""

import time

import pytest

from service.errors import BadRequest
from service.protocols.options import PARAMETER_NAMES, parse_deadline, parse_options, parse_request_id
from service.settings import load_settings
from service.types import ClassifyOptions

SETTINGS = load_settings({"request_timeout_s": "30", "max_request_timeout_s": "300"}, {})


def test_nothing_given_is_the_defaults() -> None:
    assert parse_options({}) == ClassifyOptions()


def test_every_parameter_is_taken() -> None:
    given = {
        "model": "cifar10@2",
        "top_k": "3",
        "tta": "multi_scale",
        "scales": "224, 256",
        "merge": "logits",
        "pool": "global",
        "map": "TRUE",
        "class": "7",
        "logits": "1",
        "precision": "int8",
        "priority": "bulk",
    }
    assert set(given) == set(PARAMETER_NAMES)
    assert parse_options(given) == ClassifyOptions(
        model="cifar10@2",
        top_k=3,
        tta="multi_scale",
        scales=(224, 256),
        merge="logits",
        pool="global",
        wants_map=True,
        map_class=7,
        wants_logits=True,
        precision="int8",
        priority="bulk",
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "../etc/passwd"),
        ("model", "a@b"),
        ("model", ""),
        ("model", "x" * 200),
        ("top_k", "0"),
        ("top_k", "-1"),
        ("top_k", "1.5"),
        ("top_k", "1001"),
        ("top_k", "٣"),
        ("top_k", "9" * 5000),
        ("tta", "Ten Crop"),
        ("scales", "224,,256"),
        ("scales", "-1"),
        ("scales", "1e9"),
        ("scales", "nan"),
        ("scales", ""),
        ("scales", "4294967295"),
        ("scales", ",".join(["224"] * 9)),
        ("merge", "mean"),
        ("pool", "max"),
        ("map", "maybe"),
        ("class", "cat"),
        ("logits", "2"),
        ("precision", "fp64"),
        ("priority", "urgent"),
    ],
)
def test_bad_value_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_options({name: value})
    assert caught.value.field == name
    assert len(caught.value.detail) < 200


def test_unknown_parameter_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadRequest, match="topk is not a parameter; known are model, top_k"):
        parse_options({"topk": "3"})


def test_class_without_map_is_refused() -> None:
    with pytest.raises(BadRequest, match="needs map=true"):
        parse_options({"class": "1"})


@pytest.mark.parametrize("given", ["a", "A-b_c.9", "x" * 64])
def test_good_request_id_is_kept(given: str) -> None:
    assert parse_request_id(given) == given


@pytest.mark.parametrize("given", [None, "", "x" * 65, "a b", "a\n", "é", "<script>"])
def test_bad_request_id_is_replaced(given: str | None) -> None:
    made = parse_request_id(given)
    assert made != given
    assert len(made) == 32


@pytest.mark.parametrize(
    ("given", "seconds"), [(None, 30.0), ("2", 2.0), ("0.25", 0.25), ("1e9", 300.0), ("inf", 300.0)]
)
def test_deadline_is_bounded(given: str | None, seconds: float) -> None:
    before = time.monotonic()
    deadline = parse_deadline(given, SETTINGS)
    assert before + seconds <= deadline <= time.monotonic() + seconds


@pytest.mark.parametrize("given", ["0", "-1", "nan", "soon", "", "1s"])
def test_bad_timeout_is_refused(given: str) -> None:
    with pytest.raises(BadRequest, match="Request-Timeout"):
        parse_deadline(given, SETTINGS)
