"""What a log line looks like, and when it is written."""

import io
import json
import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from service.logs import LineHandler, gather_lines, set_up_logs

log = logging.getLogger("tests.logs")


@pytest.fixture
def handler() -> Iterator[LineHandler]:
    """Of a process that logs JSON at info."""
    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    yield set_up_logs("frontend-0", "json", "info", io.StringIO())
    root.handlers[:], root.level = kept, level


@pytest.fixture
def stream(handler: LineHandler) -> io.StringIO:
    """Where its lines go."""
    assert isinstance(handler.stream, io.StringIO)
    return handler.stream


def read(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_a_json_object_with_its_fields(stream: io.StringIO) -> None:
    log.info("request", extra={"fields": {"code": "200", "ms": 1.5, "name": "\u00fc"}})
    [line] = read(stream)
    time = str(line.pop("time"))
    assert line == {
        "level": "info",
        "process": "frontend-0",
        "message": "request",
        "code": "200",
        "ms": 1.5,
        "name": "\u00fc",
    }
    assert time.endswith("Z")
    assert len(time) == len("2026-01-01T00:00:00.000Z")


@pytest.mark.parametrize(
    "value", [pytest.param("\ud800", id="half a character"), pytest.param(object(), id="no JSON")]
)
def test_a_field_of_any_kind_is_told(stream: io.StringIO, value: object) -> None:
    log.error("odd", extra={"fields": {"value": value}})
    assert read(stream)[0]["message"] == "odd"


def test_lines_of_a_turn_are_written_at_its_end(handler: LineHandler, stream: io.StringIO) -> None:
    turns: list[Callable[[], None]] = []
    gather_lines(handler, turns.append)
    for number in range(3):
        log.info("request", extra={"fields": {"number": number}})
    assert not stream.getvalue()
    assert len(turns) == 1
    turns.pop()()
    assert [line["number"] for line in read(stream)] == [0, 1, 2]
    log.info("again")
    assert len(turns) == 1


def test_a_warning_waits_for_nothing_and_overtakes_no_line(handler: LineHandler, stream: io.StringIO) -> None:
    turns: list[Callable[[], None]] = []
    gather_lines(handler, turns.append)
    log.info("first")
    log.warning("second")
    assert [line["message"] for line in read(stream)] == ["first", "second"]
    turns.pop()()
    assert len(read(stream)) == 2


def test_a_line_of_another_thread_is_written_at_once(handler: LineHandler, stream: io.StringIO) -> None:
    def forbid(_: Callable[[], None]) -> None:
        raise AssertionError("a loop is told nothing by other threads")

    gather_lines(handler, forbid)
    thread = threading.Thread(target=lambda: log.info("from elsewhere"))
    thread.start()
    thread.join()
    assert [line["message"] for line in read(stream)] == ["from elsewhere"]
