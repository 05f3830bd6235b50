"""Maps an asynchronous function over a stream: several calls at once, the answers in the stream's order.

A call takes some values together and answers each when it can. What is under way is bounded in number and in
bytes, and so is what waits for an earlier answer.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class WindowLimits:
    """`at_once` calls under way; `ahead` answers begun beyond the oldest missing; `held_bytes` of inputs."""

    at_once: int = 8
    ahead: int = 512
    held_bytes: int = 16 << 20


class Window(Generic[In, Out]):
    """`async with Window(...) as window`, then `take` until it says []; leaving it cancels the rest."""

    def __init__(
        self,
        inputs: AsyncIterator[Sequence[In]],
        call: Callable[[Sequence[In]], AsyncGenerator[Sequence[tuple[int, Out]], None]],
        measure: Callable[[Sequence[In]], int],
        limits: WindowLimits,
    ) -> None:
        """`call` yields answers by the place of their value; `measure`: bytes of some values.

        An exception of `inputs` or `call` is raised to the reader.
        """
        self._inputs, self._call, self._measure, self._limits = inputs, call, measure, limits
        self._answers: dict[int, Out] = {}
        self._begun = 0  # values taken from the stream
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

    async def take(self, most: int) -> list[Out]:
        """The next answers, as many as are there, at least one and at most `most`; [] at the end."""
        while self._given not in self._answers:
            if self._error is not None:
                raise self._error
            if self._is_exhausted and self._given == self._begun:
                return []
            self._changed.clear()
            await self._changed.wait()
        taken: list[Out] = []
        while len(taken) < most and self._given in self._answers:
            taken.append(self._answers.pop(self._given))
            self._given += 1
        self._room.set()
        return taken

    async def _run_lane(self) -> None:
        try:
            while (taken := await self._take_input()) is not None:
                await self._run_call(*taken)
        except asyncio.CancelledError:
            raise
        except BaseException as err:
            self._error = self._error or err
            self._changed.set()

    async def _run_call(self, first: int, values: Sequence[In], size_bytes: int) -> None:
        try:
            async with aclosing(self._call(values)) as answers:
                async for some in answers:
                    for place, answer in some:
                        self._answers[first + place] = answer
                    if self._given in self._answers:
                        self._changed.set()
        finally:
            self._held_bytes -= size_bytes
            self._room.set()

    async def _take_input(self) -> tuple[int, Sequence[In], int] | None:
        async with self._taking:  # one lane at a time asks the stream, so that numbers follow it
            while not self._has_room():
                self._room.clear()
                await self._room.wait()
            if self._is_exhausted:
                return None
            values = await anext(self._inputs, None)
            if values is None:
                self._is_exhausted = True
                self._changed.set()
                return None
            first, size_bytes = self._begun, self._measure(values)
            self._begun += len(values)
            self._held_bytes += size_bytes
            return first, values, size_bytes

    def _has_room(self) -> bool:
        is_ahead = self._begun - self._given >= self._limits.ahead
        return self._is_exhausted or (not is_ahead and self._held_bytes < self._limits.held_bytes)
