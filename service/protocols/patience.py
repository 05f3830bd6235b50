"""Waiting out an overload for callers who hold many images and cannot go elsewhere with one of them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from service.errors import Overloaded

# The queue is asked again after this long, or what the error says if shorter.
PAUSE_S = 0.25

Answer = TypeVar("Answer")


async def wait_out(attempt: Callable[[], Awaitable[Answer]], gives_up: float) -> Answer:
    """What `attempt` returns; it is tried again while it raises Overloaded, until monotonic `gives_up`."""
    while True:
        try:
            return await attempt()
        except Overloaded as error:
            pause_s = min(error.retry_after_s or PAUSE_S, PAUSE_S)
            if time.monotonic() + pause_s >= gives_up:
                raise
        await asyncio.sleep(pause_s)
