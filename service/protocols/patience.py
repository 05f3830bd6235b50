"""Waiting out an overload, or the caller's own rate, with many images that cannot go elsewhere one by one."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from service.errors import Overloaded, RateLimited

# The queue is asked again after this long, or what the error says if shorter.
PAUSE_S = 0.25

Answer = TypeVar("Answer")


async def wait_out(attempt: Callable[[], Awaitable[Answer]], gives_up: float) -> Answer:
    """What `attempt` returns; it is tried again while that is refused for now, until monotonic `gives_up`."""
    while True:
        try:
            return await attempt()
        except (Overloaded, RateLimited) as error:
            pause_s = min(error.retry_after_s or PAUSE_S, PAUSE_S)
            if time.monotonic() + pause_s >= gives_up:
                raise
        await asyncio.sleep(pause_s)
