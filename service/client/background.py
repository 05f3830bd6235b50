"""An event loop on a thread of its own, for code without asyncio."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Background:
    """Runs coroutines for callers on other threads. Its thread never keeps a program from ending."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="resnet-client", daemon=True)
        self._ending: asyncio.Task[None] | None = None
        self.is_closed = False
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Wait for `work`, and cancel it where the wait is interrupted; raises RuntimeError once closed."""
        if self.is_closed:
            work.close()
            raise RuntimeError("this client is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

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
            self.call(last())
        finally:
            self.is_closed = True
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _run(self) -> None:
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
