"""What the worker says about one image, as frames: ranked scores, or what went wrong and whose fault."""

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.errors import BadRequest, ServiceError
from service.messages import Failure, MapAnswer, Replies, Result
from service.transport import encode_frame
from service.worker.pipeline import Answer, ClassMap
from service.worker.request import Request

Reply = tuple[Request, Answer | ServiceError]


def encode_replies(replies: Sequence[Reply], wait_ms: float, seen: int) -> bytes:
    """Answers and refusals for one frontend, as frames; images up to `seen` are in the predicted wait.

    Maps have a frame each, as they have a payload; all others together have one.
    """
    frames: list[bytes] = []
    told: list[Result | Failure] = []
    for request, answer in replies:
        if isinstance(answer, ServiceError):
            told.append(_make_failure(request, answer, wait_ms, seen))
        elif answer.map is None:
            told.append(_make_result(request, answer, wait_ms, seen))
        else:
            frames.append(encode_frame(_make_result(request, answer, wait_ms, seen), answer.map.drawn.png))
    if told:
        frames.append(encode_frame(told[0] if len(told) == 1 else Replies(told)))
    return frames[0] if len(frames) == 1 else b"".join(frames)


def _make_result(request: Request, answer: Answer, wait_ms: float, seen: int) -> Result:
    options, scores = request.message.options, answer.scores
    indices = rank_classes(scores.probabilities, options.top_k)
    ranked: list[float] = scores.probabilities[indices].tolist()
    now = time.monotonic()
    total_ms = (now - request.arrived) * 1000
    infer_ms = request.read_infer_ms(now)
    return Result(
        id=request.message.id,
        indices=indices,
        probabilities=ranked,
        tta_asked=request.tta,
        tta_used=request.tta,
        views=scores.views,
        decode_ms=request.decode_ms,
        queue_ms=max(0.0, total_ms - request.decode_ms - infer_ms),
        infer_ms=infer_ms,
        wait_ms=wait_ms,
        logits=scores.logits.tolist() if options.wants_logits else None,
        map=_describe_map(answer.map),
        seen=seen,
    )


def _describe_map(found: ClassMap | None) -> MapAnswer | None:
    if found is None:
        return None
    return MapAnswer(found.class_index, found.drawn.array.tolist(), found.drawn.box)


def _make_failure(request: Request, error: ServiceError, wait_ms: float, seen: int) -> Failure:
    field = error.field if isinstance(error, BadRequest) else None
    return Failure(request.message.id, error.slug, error.detail, wait_ms, error.retry_after_s, field, seen)


def rank_classes(probabilities: NDArray[np.float32], top_k: int) -> list[int]:
    """Indices of the `top_k` largest of float32 [K], best first; equals in the order of their index."""
    ranked: list[int] = (-probabilities).argsort(kind="stable")[:top_k].tolist()
    return ranked
