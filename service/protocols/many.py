"""Several images of one request, for protocols whose answer has all of them or an error."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from service.errors import BadRequest, ServiceError, TooLarge
from service.protocols.base import ProtocolContext
from service.protocols.patience import wait_out
from service.types import Classification, ClassifyOptions, ClassifyRequest


@dataclass(frozen=True, slots=True)
class ManyImages:
    """What to ask of each of `images`; `deadline` is time.monotonic() seconds."""

    images: Sequence[bytes]
    options: ClassifyOptions
    request_id: str
    deadline: float
    protocol: str
    caller: str = ""


async def classify_many(context: ProtocolContext, many: ManyImages) -> list[Classification]:
    """An answer for each image, in order. The first error is the request's and ends the other images' work.

    The first image is refused where the queue is too long, as any request is; the others are then waited for.
    """
    _check_sizes(many.images, context.settings.max_image_bytes)

    async def classify(number: int, image: bytes) -> Classification:
        request_id = many.request_id if len(many.images) == 1 else f"{many.request_id[:56]}.{number}"
        request = ClassifyRequest(image, request_id, many.deadline, many.options, many.caller, many.protocol)
        patience_s = context.settings.request_timeout_s if number else 0.0
        gives_up = min(many.deadline, time.monotonic() + patience_s)
        try:
            return await wait_out(lambda: context.classifier.classify(request), gives_up)
        except ServiceError as error:
            if len(many.images) > 1:
                error.detail = f"image {number}: {error.detail}"
            raise

    return await _gather([classify(number, image) for number, image in enumerate(many.images)])


def _check_sizes(images: Sequence[bytes], limit_bytes: int) -> None:
    for number, image in enumerate(images):
        if not image:
            raise BadRequest(f"image {number} is empty")
        if len(image) > limit_bytes:
            limit = f"the limit is {limit_bytes} (SERVE_MAX_IMAGE_BYTES)"
            raise TooLarge(f"image {number} has {len(image)} bytes, {limit}")


async def _gather(work: list[Coroutine[Any, Any, Classification]]) -> list[Classification]:
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
