"""AsyncClient does the work; Client is the same on a background event loop, for code without asyncio."""

import asyncio
import time
import weakref
from collections.abc import AsyncGenerator, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Protocol

from service.client.background import Background
from service.client.http import HttpTransport
from service.client.images import ImageSource, encode_image
from service.client.outcome import ModelInfo, Outcome
from service.client.retry import Patience
from service.client.tls import ClientTls
from service.errors import BadRequest, ServiceError
from service.types import REQUEST_ID, Classification, ClassifyOptions

DEFAULT_URL = "http://127.0.0.1:8080"
SCHEMES = ("http://", "https://", "grpc://", "grpcs://")


class Transport(Protocol):
    """One way to reach a server; HTTP and gRPC are the two there are."""

    async def classify(
        self, image: bytes, options: ClassifyOptions, timeout_s: float, request_id: str | None
    ) -> Classification:
        """One attempt; raises ServiceError."""
        ...

    async def list_models(self, timeout_s: float) -> list[ModelInfo]:
        """One attempt; raises ServiceError."""
        ...

    async def is_ready(self, timeout_s: float) -> bool:
        """Never raises."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


def _open_transport(url: str, api_key: str | None, tls: ClientTls | None, connections: int) -> Transport:
    if url.startswith(("grpc://", "grpcs://")):
        from service.client.rpc import GrpcTransport

        return GrpcTransport(url, api_key, tls)
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is no server: write http://host:8080, https://host or grpc://host:8081")
    return HttpTransport(url, api_key, connections, tls)


class AsyncClient:
    """A client for one server, http(s)://host:port or grpc(s)://host:port; use as `async with`.

    `timeout_s` bounds each image, retries included. `attempts`: tries in all for what may pass later
    (overload, rate limits, broken connections), with jitter, honouring Retry-After.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        tls: ClientTls | None = None,
        timeout_s: float = 30.0,
        attempts: int = 5,
        window: int = 32,
    ) -> None:
        """`window`: images in flight at once in classify_many, and so the memory it takes."""
        self._transport = _open_transport(url, api_key, tls, connections=window)
        self._timeout_s, self._attempts, self._window = timeout_s, attempts, window

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._transport.close()

    async def classify(
        self,
        image: ImageSource,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
        **options: Any,
    ) -> Classification:
        """Classify one image; `options` are the fields of ClassifyOptions (model, top_k, tta, ...).

        Raises ServiceError's subclasses, ConnectionFailed among them; OSError for an unreadable file,
        ValueError for a `request_id` that is not 1 to 64 of A-Z a-z 0-9 . _ -.
        """
        if request_id is not None and not REQUEST_ID.fullmatch(request_id):
            raise ValueError(f"request_id is {request_id[:80]!r}, it must be 1 to 64 of A-Z a-z 0-9 . _ -")
        content = await asyncio.to_thread(encode_image, image)
        asked = make_options(options)
        deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        patience = Patience(self._attempts, deadline)
        while True:
            try:
                return await self._transport.classify(content, asked, patience.left_s(), request_id)
            except ServiceError as err:
                pause_s = patience.pause_after(err)
                if pause_s is None:
                    raise
            await asyncio.sleep(pause_s)

    async def classify_many(self, images: Iterable[ImageSource], **options: Any) -> AsyncGenerator[Outcome]:
        """Classify images as they are drawn from `images`, answers in their order, one Outcome each.

        At most `window` images are held at once, however many there are. A bad image is an Outcome with an
        error, its neighbours go on. `options` as in `classify`.
        """
        make_options(options)  # a misspelt option fails here, not once for every image
        tasks: asyncio.Queue[asyncio.Task[Outcome]] = asyncio.Queue()
        source = enumerate(images)
        try:
            while True:
                while tasks.qsize() < self._window and (item := next(source, None)) is not None:
                    tasks.put_nowait(asyncio.create_task(self._classify_one(*item, options)))
                if tasks.empty():
                    return
                yield await tasks.get_nowait()
        finally:
            while not tasks.empty():
                tasks.get_nowait().cancel()

    async def _classify_one(self, index: int, image: ImageSource, options: dict[str, Any]) -> Outcome:
        try:
            return Outcome(index, classification=await self.classify(image, **options))
        except ServiceError as err:
            return Outcome(index, error=err)
        except (OSError, ValueError, TypeError) as err:
            return Outcome(index, error=BadRequest(str(err)))

    async def list_models(self) -> list[ModelInfo]:
        """The models that answer now."""
        return await self._transport.list_models(self._timeout_s)

    async def is_ready(self) -> bool:
        """Whether the server takes requests."""
        return await self._transport.is_ready(self._timeout_s)


class Client:
    """AsyncClient for code without asyncio: the same methods, blocking. Safe to share between threads.

    Use as `with Client(...)`, or close it; one that is forgotten closes itself with the program.
    """

    def __init__(self, url: str = DEFAULT_URL, **settings: Any) -> None:
        """`settings` as AsyncClient's."""
        self._background = Background()

        async def build() -> AsyncClient:
            return AsyncClient(url, **settings)

        try:
            self._client = self._background.call(build())
        except BaseException:
            self._background.close(partial(asyncio.sleep, 0))
            raise
        self._close = weakref.finalize(self, self._background.close, self._client.close)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection and stop the background loop."""
        self._close()

    def classify(self, image: ImageSource, **options: Any) -> Classification:
        """As AsyncClient.classify."""
        return self._background.call(self._client.classify(image, **options))

    def classify_many(self, images: Iterable[ImageSource], **options: Any) -> Iterator[Outcome]:
        """As AsyncClient.classify_many; `images` is drawn from on the background thread."""
        outcomes = self._client.classify_many(images, **options)

        async def step() -> Outcome | None:
            return await anext(outcomes, None)

        async def stop() -> None:
            await outcomes.aclose()

        while (outcome := self._background.call(step())) is not None:  # what it raises has ended `outcomes`
            try:
                yield outcome
            except BaseException:
                if not self._background.is_closed:
                    self._background.call(stop())
                raise

    def list_models(self) -> list[ModelInfo]:
        """As AsyncClient.list_models."""
        return self._background.call(self._client.list_models())

    def is_ready(self) -> bool:
        """As AsyncClient.is_ready."""
        return self._background.call(self._client.is_ready())


def make_options(given: dict[str, Any]) -> ClassifyOptions:
    """ClassifyOptions from keywords; raises TypeError naming an unknown one."""
    try:
        return ClassifyOptions(**given)
    except TypeError as err:
        known = ", ".join(ClassifyOptions.__dataclass_fields__)
        raise TypeError(f"{', '.join(given)}: not all are options; known are {known}") from err
