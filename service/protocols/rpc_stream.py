"""Many questions over one call: answered at once, told in order, never more than a window of them held."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Generic, TypeVar

from service.errors import RequestTimeout

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Window:
    """Room for `max_items` items of `max_bytes` together; one item alone always fits."""

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self._max_items, self._max_bytes = max_items, max_bytes
        self._items = self._bytes = 0
        self._changed = asyncio.Event()

    async def enter(self, size_bytes: int) -> None:
        """Wait for room, then take it."""
        while self._items and (self._items >= self._max_items or self._bytes + size_bytes > self._max_bytes):
            self._changed.clear()
            await self._changed.wait()
        self._items += 1
        self._bytes += size_bytes

    def leave(self, size_bytes: int) -> None:
        """Give the room back."""
        self._items -= 1
        self._bytes -= size_bytes
        self._changed.set()


class OrderedAnswers(Generic[Item, Answer]):
    """Reads `items` as far ahead as `window` lets it and starts `answer` on each; `tell` takes them in order.

    An answer keeps its place in the window until `tell` is done with it, so a reader that does not read stops
    the sender. A sender is silent while nothing is under way and nothing comes; one timer for the whole
    stream looks for that, as one for each item would cost more. Whatever ends `run` ends every answer still
    under way.
    """

    def __init__(
        self,
        items: AsyncIterator[Item],
        answer: Callable[[int, Item], Awaitable[Answer]],
        size_of: Callable[[Item], int],
        window: Window,
        silence_s: float,
    ) -> None:
        """`silence_s`: the longest silence; then `run` raises RequestTimeout."""
        self._items, self._answer, self._size_of, self._window = items, answer, size_of, window
        self._silence_s, self._is_silent = silence_s, False
        self._active_at = time.monotonic()
        self._started: asyncio.Queue[tuple[asyncio.Future[Answer], int] | None] = asyncio.Queue()
        self._under_way: set[asyncio.Future[Answer]] = set()

    async def run(self, tell: Callable[[Answer], Awaitable[None]]) -> None:
        """Until the last item is told; raises what `items`, `answer` or `tell` raised."""
        reader = asyncio.ensure_future(self._read())
        watching = asyncio.ensure_future(self._watch(reader))
        try:
            while (started := await self._started.get()) is not None:
                task, size_bytes = started
                await tell(await task)
                self._under_way.discard(task)
                self._window.leave(size_bytes)
                self._active_at = time.monotonic()
            if self._is_silent:
                raise RequestTimeout(f"no message in {self._silence_s:g} s")
            await reader
        finally:
            left: list[asyncio.Future[Any]] = [reader, watching, *self._under_way]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _read(self) -> None:
        try:
            index = 0
            async for item in self._items:
                self._active_at = time.monotonic()
                size_bytes = self._size_of(item)
                await self._window.enter(size_bytes)
                task = asyncio.ensure_future(self._answer(index, item))
                self._under_way.add(task)
                self._started.put_nowait((task, size_bytes))
                index += 1
        finally:
            self._started.put_nowait(None)

    async def _watch(self, reader: asyncio.Future[None]) -> None:
        left_s = self._silence_s
        while left_s > 0:
            await asyncio.sleep(left_s)
            since = time.monotonic() if self._under_way else self._active_at
            left_s = since + self._silence_s - time.monotonic()
        self._is_silent = True
        reader.cancel()
