"""A gRPC call whose method is a coroutine: it runs as a task, and takes messages as they come.

The one method that decides how much the port serves has a call of its own (rpc_classify.py).
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import grpc

from service.errors import BadRequest, DeadlinePassed, RequestTimeout, ServiceError
from service.protocols.h2.stream import Stream
from service.protocols.rpc_calls import Call
from service.protocols.rpc_context import Aborted, CallerLeft, RpcContext
from service.protocols.rpc_errors import REQUEST_ID_KEY, find_code, make_trailers
from service.protocols.rpc_inbound import CallDesk, Inbound
from service.protocols.rpc_methods import Method
from service.protocols.rpc_wire import CallHead


class TaskCall(Inbound):
    """Runs `method` once its first message is there, or the caller has ended without one."""

    def __init__(
        self, desk: CallDesk, stream: Stream, head: CallHead, caller: str, *, method: Method
    ) -> None:
        super().__init__(desk, stream, head, caller)
        self._method = method
        self.context = RpcContext(head, stream, caller, method.encode)
        self._messages: deque[tuple[bytes, bool]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._waits_since = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        self._is_read = False
        self._failure: ServiceError | None = None  # of reading, for whoever reads next
        self._stop: ServiceError | None = None  # why the task was cancelled, where the caller has not left

    # The stream's calls

    def take(self, message: bytes, *, is_compressed: bool) -> None:
        """See Inbound."""
        self._messages.append((message, is_compressed))
        self._wake()

    def end(self) -> None:
        """See h2.stream.Handler."""
        if self.is_over:
            return
        if self._reader.is_amid:
            self._failure = BadRequest("the call ended within a message")
        self._is_read = True
        self._wake()

    def lose(self) -> None:
        """See h2.stream.Handler."""
        self.context.is_left = True
        self._close()
        if self._task is not None:
            self._task.cancel()

    def watch(self, now: float) -> None:
        """See h2.stream.Handler."""
        remaining_s = self.context.time_remaining()
        if remaining_s is not None and remaining_s < 0:
            self.stop(DeadlinePassed("the deadline passed before the call was answered"))
        elif self._task is None:
            self._watch_reading(now)
        elif self._waiter is not None and not self._waiter.done():
            self._watch_waiting(now)

    def stop(self, error: ServiceError) -> None:
        """End it before its time."""
        if self._task is None:
            self.tell(error)
        elif self._stop is None:
            self._stop = error
            self._task.cancel()

    def refuse(self, code: grpc.StatusCode, details: str, error: ServiceError | None = None) -> None:
        """See Inbound: while the method runs, it is told where it reads."""
        if self._task is not None:
            self._failure = error or BadRequest(details)
            self._wake()
            return
        if self.is_over:
            return
        self._count_refusal(code, details, error)

    @property
    def is_behind(self) -> bool:
        """See Inbound."""
        return bool(self._messages)

    # The task

    def _wake(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _run(self) -> None:
        context, method = self.context, self._method
        try:
            argument = self._iterate() if method.takes_stream else await self._read_one()
            if method.is_generator:
                async for message in method.behave(argument, context):
                    await context.write(message)
                context.finish(grpc.StatusCode.OK)
            else:
                answer = await method.behave(argument, context)
                if method.gives_stream:
                    context.finish(grpc.StatusCode.OK)
                else:
                    context.respond(answer)
        except Aborted as end:
            context.finish(end.code, end.details)
        except ServiceError as error:  # of reading the first message, or of a generator that read on
            self._count_refusal(find_code(error), error.detail, error)
        except CallerLeft:
            return
        except asyncio.CancelledError:
            if self._stop is not None:
                self._count_refusal(find_code(self._stop), self._stop.detail, self._stop, is_counted=True)
        except Exception:
            fault = self.desk.calls.report(self.head.route, self._make_call())
            self._count_refusal(find_code(fault), fault.detail, fault)
        finally:
            self._close()

    async def _read_one(self) -> Any:
        try:
            return await anext(self._iterate())
        except StopAsyncIteration:
            raise BadRequest("the call has no message") from None

    async def _iterate(self) -> AsyncIterator[Any]:
        while True:
            while not self._messages:
                if self._failure is not None:
                    raise self._failure
                if self._is_read:
                    return
                self._waits_since = time.monotonic()
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
            message, is_compressed = self._messages.popleft()
            self.settle()
            if not self._messages:
                self.release()
            if is_compressed:
                message = await asyncio.to_thread(self.inflate, message)
            request = self._method.read(message)
            del message  # what is read waits there, once
            yield request

    # The clock

    def _watch_reading(self, now: float) -> None:
        delay = self.find_delay(now)
        if delay is not None:
            self.tell(delay)

    def _watch_waiting(self, now: float) -> None:
        """A method reads on, and nothing comes. One that answers images as they come knows itself whether any
        is under way; a generator does nothing else meanwhile.
        """
        silence_s = self.desk.settings.keepalive_timeout_s
        delay = self.find_delay(now) if self._reader.is_amid else None
        if delay is not None:
            self._fail_reading(delay)
        elif self._method.is_generator and now - self._waits_since > silence_s:
            self._fail_reading(RequestTimeout(f"no message in {silence_s:g} s"))

    def _fail_reading(self, error: ServiceError) -> None:
        self._failure = error
        self._wake()

    # The end

    def _make_call(self) -> Call:
        return Call(self.head, self.caller, None)

    def _count_refusal(
        self, code: grpc.StatusCode, details: str, error: ServiceError | None, *, is_counted: bool = False
    ) -> None:
        """End with a status outside any servicer; `is_counted`: one has counted the call already."""
        call, route = self._make_call(), self.head.route
        if not is_counted:
            self.desk.calls.begin()
            self.desk.calls.end(route, call, code.name)
        if error is not None:
            self.context.set_trailing_metadata(make_trailers(error, call.request_id))
        else:
            self.context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
        self.context.finish(code, details)
        self._close()

    def _close(self) -> None:
        self.is_over = True
        self.release()
        self._messages.clear()
