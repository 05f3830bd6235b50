"""Maps an asynchronous function over a stream: several at once, the answers in the stream's order.

What is under way is bounded in number and in bytes, and so is what waits for an earlier answer.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class WindowLimits:
    """`at_once` calls under way; `ahead` answers begun beyond the oldest missing; `held_bytes` of inputs."""

    at_once: int = 64
    ahead: int = 512
    held_bytes: int = 16 << 20


class Window(Generic[In, Out]):
    """`async with Window(...) as window: async for out in window`; leaving it cancels what is under way."""

    def __init__(
        self,
        inputs: AsyncIterator[In],
        call: Callable[[In], Awaitable[Out]],
        measure: Callable[[In], int],
        limits: WindowLimits,
    ) -> None:
        """`measure`: bytes of an input. An exception of `inputs` or `call` is raised to the reader."""
        self._inputs, self._call, self._measure, self._limits = inputs, call, measure, limits
        self._answers: dict[int, Out] = {}
        self._begun = 0  # inputs taken from the stream
        self._given = 0  # answers handed out
        self._held_bytes = 0
        self._is_exhausted = False
        self._error: BaseException | None = None
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._taking = asyncio.Lock()
        self._lanes: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Window[In, Out]":
        loop = asyncio.get_running_loop()
        self._lanes = [loop.create_task(self._run_lane()) for _ in range(self._limits.at_once)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for lane in self._lanes:
            lane.cancel()
        await asyncio.gather(*self._lanes, return_exceptions=True)

    def __aiter__(self) -> "Window[In, Out]":
        return self

    async def __anext__(self) -> Out:
        while self._given not in self._answers:
            if self._error is not None:
                raise self._error
            if self._is_exhausted and self._given == self._begun:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        answer = self._answers.pop(self._given)
        self._given += 1
        self._room.set()
        return answer

    async def take(self, most: int) -> list[Out]:
        """The next answers, as many as are there, at least one and at most `most`; [] at the end."""
        try:
            taken = [await anext(self)]
        except StopAsyncIteration:
            return []
        while self._given in self._answers and len(taken) < most:
            taken.append(await anext(self))
        return taken

    async def _run_lane(self) -> None:
        try:
            while True:
                taken = await self._take()
                if taken is None:
                    return
                number, value, size_bytes = taken
                try:
                    self._answers[number] = await self._call(value)
                finally:
                    self._held_bytes -= size_bytes
                    self._room.set()
                if number == self._given:
                    self._changed.set()
        except asyncio.CancelledError:
            raise
        except BaseException as err:
            self._error = self._error or err
            self._changed.set()

    async def _take(self) -> tuple[int, In, int] | None:
        async with self._taking:  # one lane at a time asks the stream, so that numbers follow it
            while not self._has_room():
                self._room.clear()
                await self._room.wait()
            if self._is_exhausted:
                return None
            value = await anext(self._inputs, None)
            if value is None:
                self._is_exhausted = True
                self._changed.set()
                return None
            number, size_bytes = self._begun, self._measure(value)
            self._begun += 1
            self._held_bytes += size_bytes
            return number, value, size_bytes

    def _has_room(self) -> bool:
        is_ahead = self._begun - self._given >= self._limits.ahead
        return self._is_exhausted or (not is_ahead and self._held_bytes < self._limits.held_bytes)
