"""What the worker says about one image, as frames: ranked scores, or what went wrong and whose fault."""

import time

import numpy as np
from numpy.typing import NDArray

from service.errors import BadRequest, ServiceError
from service.messages import Failure, MapAnswer, Result
from service.transport import encode_frame
from service.worker.pipeline import Answer, ClassMap
from service.worker.request import Request

Reply = tuple[Request, Answer | ServiceError]


def encode_reply(request: Request, answer: Answer | ServiceError, wait_ms: float, seen: int) -> bytes:
    """The frame of an answer or a refusal; `wait_ms` is the predicted wait now, images up to `seen` in it."""
    if isinstance(answer, ServiceError):
        return _encode_failure(request, answer, wait_ms, seen)
    return _encode_result(request, answer, wait_ms, seen)


def _encode_result(request: Request, answer: Answer, wait_ms: float, seen: int) -> bytes:
    options, scores = request.message.options, answer.scores
    indices = rank_classes(scores.probabilities, options.top_k)
    now = time.monotonic()
    total_ms = (now - request.arrived) * 1000
    infer_ms = request.read_infer_ms(now)
    result = Result(
        id=request.message.id,
        indices=indices,
        probabilities=[float(scores.probabilities[index]) for index in indices],
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
    return encode_frame(result, b"" if answer.map is None else answer.map.drawn.png)


def _describe_map(found: ClassMap | None) -> MapAnswer | None:
    if found is None:
        return None
    return MapAnswer(found.class_index, found.drawn.array.tolist(), found.drawn.box)


def _encode_failure(request: Request, error: ServiceError, wait_ms: float, seen: int) -> bytes:
    field = error.field if isinstance(error, BadRequest) else None
    failure = Failure(request.message.id, error.slug, error.detail, wait_ms, error.retry_after_s, field, seen)
    return encode_frame(failure)


def rank_classes(probabilities: NDArray[np.float32], top_k: int) -> list[int]:
    """Indices of the `top_k` largest of float32 [K], best first; equals in the order of their index."""
    ranked: list[int] = np.argsort(-probabilities, kind="stable")[:top_k].tolist()
    return ranked
