"""Turns what workers and the supervisor say into the public nouns of service/types.py."""

import time

from service.errors import BadRequest, ServiceError, find_error
from service.links import WorkerLink
from service.messages import ChildState, Failure, Result
from service.types import ActivationMap, Box, ChildStatus, Prediction, Timings, WorkerStatus


def read_failure(message: Failure) -> ServiceError:
    """The error a worker answered with."""
    error = find_error(message.slug)(message.detail)
    error.retry_after_s = message.retry_after_s
    if isinstance(error, BadRequest):
        error.field = message.field
    return error


def read_predictions(message: Result, labels: tuple[str, ...]) -> tuple[Prediction, ...]:
    """Ranked predictions with the card's labels."""
    pairs = zip(message.indices, message.probabilities, strict=True)
    return tuple([Prediction(index, labels[index], probability) for index, probability in pairs])


def read_timings(message: Result, arrived: float) -> Timings:
    """The worker's stages, and the whole since `arrived` (time.monotonic() seconds)."""
    total_ms = (time.monotonic() - arrived) * 1000
    return Timings(message.decode_ms, message.queue_ms, message.infer_ms, total_ms)


def read_map(message: Result, png: bytes) -> ActivationMap | None:
    """The activation map, if one was asked for; `png` is the frame's payload."""
    if message.map is None:
        return None
    rows = tuple(tuple(row) for row in message.map.array)
    return ActivationMap(png, rows, message.map.class_index, Box(*message.map.box))


def describe_child(child: ChildState) -> ChildStatus:
    """One child for /v1/status."""
    return ChildStatus(
        child.role,
        child.slot,
        child.pid,
        child.state,
        child.restarts,
        child.model,
        child.device,
        child.last_words,
    )


def describe_worker(link: WorkerLink, now: float) -> WorkerStatus:
    """One worker as this frontend sees it, at time.monotonic() `now`."""
    return WorkerStatus(
        worker=link.worker,
        model=link.model.name,
        version=link.model.version,
        device=link.device,
        is_retiring=link.is_retiring,
        wait_ms=link.predict_wait_ms(now),
        unanswered=link.unanswered,
        drain_per_s=link.drain_per_s,
        cost_ms=link.cost_ms,
    )
