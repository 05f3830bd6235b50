"""An event loop on a thread of its own, for code without asyncio."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from typing import Any, TypeVar

Result = TypeVar("Result")

# A caller's own iterable of images may block the loop: an end is not waited for beyond this.
STUCK_S = 5.0


class Background:
    """Runs coroutines for callers on other threads. Its thread never keeps a program from ending."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="resnet-client", daemon=True)
        self._ending: asyncio.Task[None] | None = None
        self._under_way: dict[Future[Any], asyncio.Task[Any]] = {}
        self.is_closed = False
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, Result], timeout_s: float | None = None) -> Result:
        """Wait for `work`. Where the wait is interrupted, or takes `timeout_s`, it is cancelled first.

        Raises RuntimeError once closed, TimeoutError.
        """
        if self.is_closed:
            work.close()
            raise RuntimeError("this client is closed")
        ended: Future[Result] = Future()
        self._loop.call_soon_threadsafe(self._start, work, ended)
        try:
            return ended.result(timeout_s)
        except BaseException:
            if not ended.done():
                self._loop.call_soon_threadsafe(self._cancel, ended)
                wait([ended], STUCK_S)
            raise

    def _start(self, work: Coroutine[Any, Any, Any], ended: Future[Any]) -> None:
        task = self._under_way[ended] = self._loop.create_task(work)

        def tell(_: asyncio.Task[Any]) -> None:
            del self._under_way[ended]
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            if error is None:
                ended.set_result(task.result())
            else:
                ended.set_exception(error)

        task.add_done_callback(tell)

    def _cancel(self, ended: Future[Any]) -> None:
        if ended in self._under_way:
            self._under_way[ended].cancel()

    def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `last`, then end the thread; again is nothing. Any thread may ask, this one's too."""
        if self.is_closed:
            return
        if threading.current_thread() is self._thread:  # a collector of garbage knows no threads
            self.is_closed = True
            self._ending = self._loop.create_task(last())
            self._ending.add_done_callback(lambda _: self._loop.stop())
            return
        try:
            self.call(last(), STUCK_S)
        finally:
            self.is_closed = True
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(STUCK_S)

    def _run(self) -> None:
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
