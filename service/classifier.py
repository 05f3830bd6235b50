"""The one door: every protocol gives it images and gets answers, or an error of service/errors.py.

It picks the nearest worker, holds the image until it is answered, and sends it elsewhere when a worker dies,
so that the caller sees nothing. It never looks at a pixel.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from service.admission import InflightBudget, Lease, check_wait, choose_policy, predict_retry_s
from service.answers import (
    describe_child,
    describe_worker,
    read_failure,
    read_map,
    read_predictions,
    read_timings,
)
from service.errors import DeadlinePassed, Draining, NoWorker, PoisonImage, ServiceError
from service.links import Answer, LinkLost, WorkerLink
from service.messages import (
    ChildState,
    Failure,
    ModelsChanged,
    ServedModel,
    StateChanged,
    WorkerDown,
    WorkerRetiring,
    WorkerUp,
)
from service.metrics import FrontendMetrics
from service.quarantine import Quarantine
from service.roster import Roster
from service.settings import Settings
from service.types import (
    Classification,
    ClassifyOptions,
    ClassifyRequest,
    ModelRef,
    ModelSummary,
    ServiceStatus,
    TtaUse,
)

# A worker that died is up again in about a second on a CPU; one that is not back by then has a reason.
RESPAWN_PATIENCE_S = 10.0


@lru_cache(maxsize=256)  # most callers ask the same
def _use_policy(options: ClassifyOptions, tta: str) -> ClassifyOptions:
    return replace(options, tta=tta)


FleetMessage = WorkerUp | WorkerDown | WorkerRetiring | ModelsChanged | StateChanged


@dataclass(slots=True)
class _Flight:
    """One image on its way: what was asked, what is used, and whether a decoder died of it, maybe."""

    request: ClassifyRequest
    model: ServedModel
    options: ClassifyOptions
    asked: str
    arrived: float
    is_suspect: bool = False


class Classifier:
    """Built once per frontend process, on its event loop; the supervisor's messages reach it by `apply`."""

    def __init__(self, settings: Settings, metrics: FrontendMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._roster = Roster()
        self._links: dict[int, WorkerLink] = {}
        self._children: list[ChildState] = []
        self._quarantine = Quarantine()
        self._budget = InflightBudget(settings.max_inflight_bytes, self._predict_retry_s)
        self._suspects_lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._generation = 0
        self._is_draining = False
        self._is_refusing = False

    # What protocols use

    @property
    def is_ready(self) -> bool:
        """At least one worker is up, and this instance is not stopping."""
        return not self._is_draining and any(
            link.is_up and not link.is_retiring for link in self._links.values()
        )

    @property
    def is_draining(self) -> bool:
        """This instance is stopping: it answers what it has, and wants no more."""
        return self._is_draining

    @property
    def generation(self) -> int:
        """Grows with every change of workers, models or readiness."""
        return self._generation

    async def wait_change(self, seen: int) -> int:
        """Wait until `generation` differs from `seen`, and return it."""
        while self._generation == seen:
            await self._changed.wait()
        return self._generation

    def reserve(self, size_bytes: int) -> Lease:
        """Hold room for a body before it is read; raises Overloaded. Use it as a context manager."""
        try:
            return self._budget.reserve(size_bytes)
        except ServiceError:
            self._metrics.pressure.count_rejected("", "bytes")
            raise

    async def classify(self, request: ClassifyRequest) -> Classification:
        """Answer one image; raises ServiceError. Cancelling the caller's task cancels the work."""
        arrived = time.monotonic()
        try:
            return await self._fly(await self._start_flight(request, arrived))
        except ServiceError as error:
            self._metrics.images.count_failure(self.label_of(request.options.model), error.slug)
            raise

    def list_models(self) -> list[ModelSummary]:
        """Every version served, and names of which every version was refused."""
        return self._roster.list_summaries()

    def find_model(self, name: str) -> ModelSummary:
        """The version that answers to "", "name" or "name@version"; raises UnknownModel."""
        return self._roster.summarize(name)

    def label_of(self, model: str) -> str:
        """A name for the labels of metrics: a served one, or "other"."""
        return self._roster.label_of(model)

    def status(self) -> ServiceStatus:
        """The children, and the workers as seen from here."""
        now = time.monotonic()
        return ServiceStatus(
            is_ready=self.is_ready,
            is_draining=self._is_draining,
            inflight_bytes=self._budget.held_bytes,
            max_inflight_bytes=self._budget.limit_bytes,
            children=tuple(describe_child(child) for child in self._children),
            workers=tuple(describe_worker(link, now) for link in self._links.values()),
        )

    def publish(self) -> None:
        """Bring the gauges up to date; called before they are shown and once a second."""
        self._metrics.pressure.set_inflight(self._budget.held_bytes)
        summaries = self._roster.list_summaries()
        self._metrics.models.set_models(summaries)
        for name in {summary.name for summary in summaries if summary.workers}:
            link = self._nearest(self._roster.resolve(name))
            if link is not None:
                self._metrics.pressure.set_wait(name, link.predict_wait_ms(time.monotonic()) / 1000)

    # What the frontend process uses

    def apply(self, message: FleetMessage, sock: socket.socket | None = None) -> None:
        """Take one message of the supervisor's; `sock` is WorkerUp's connection."""
        match message:
            case WorkerUp():
                if sock is None:
                    raise ValueError("WorkerUp comes with a connection")
                link = WorkerLink(message, sock, self._loop, self._drop_link)
                self._links[message.worker] = link
                self._roster.add_link(link)
            case WorkerDown():
                lost = self._links.pop(message.worker, None)
                if lost is not None:
                    lost.finish(message.suspects)
            case WorkerRetiring():
                retiring = self._links.get(message.worker)
                if retiring is not None:
                    retiring.is_retiring = True
            case ModelsChanged():
                self._roster.change_models(message)
            case StateChanged():
                self._children = message.children
        self._tell_change()

    def drain(self) -> None:
        """Not ready any more; what comes is still answered."""
        self._is_draining = True
        self._tell_change()

    def refuse(self) -> None:
        """From now on new images raise Draining."""
        self._is_refusing = True

    def close(self) -> None:
        """Drop every connection."""
        for link in list(self._links.values()):
            link.close()
        self._links.clear()

    # One image

    async def _start_flight(self, request: ClassifyRequest, arrived: float) -> _Flight:
        if self._is_refusing:
            raise Draining("this server is stopping, ask another one", retry_after_s=1.0)
        if not self._roster.is_known:
            await self._wait_until(lambda: self._roster.is_known, request.deadline)
        model = self._roster.resolve(request.options.model)
        card = self._roster.find_card(model)
        self._quarantine.check(request.image)
        options = request.options
        asked = options.tta or card.default_tta
        if options.tta is None:
            options = _use_policy(options, asked)
        return _Flight(request, model, options, asked, arrived)

    async def _fly(self, flight: _Flight) -> Classification:
        link = self._nearest(flight.model)
        if link is not None:
            self._admit(flight, link)
        while True:
            if link is None:
                link = await self._wait_worker(flight)
            try:
                return self._read_answer(flight, await self._exchange(flight, link))
            except LinkLost as lost:
                self._judge(flight, lost)
            link = None

    def _admit(self, flight: _Flight, link: WorkerLink) -> None:
        now = time.monotonic()
        wait_ms, limit_ms = link.predict_wait_ms(now), self._settings.max_wait_ms
        try:
            check_wait(wait_ms, limit_ms, (flight.request.deadline - now) * 1000)
        except ServiceError:
            self._metrics.pressure.count_rejected(flight.model.name, "wait")
            raise
        if self._settings.degrade:
            used = choose_policy(flight.asked, link.cost_ms, wait_ms, limit_ms)
            if used != flight.asked:
                flight.options = replace(flight.options, tta=used, scales=None, merge=None, pool=None)
                self._metrics.pressure.count_degraded(flight.model.name, flight.asked, used)

    async def _exchange(self, flight: _Flight, link: WorkerLink) -> Answer:
        if not flight.is_suspect:
            return await link.exchange(flight.request, flight.options, False)
        try:
            async with asyncio.timeout(max(0.0, flight.request.deadline - time.monotonic())):
                async with self._suspects_lock:  # one suspect at a time, so that a death has one cause
                    if not link.is_up:
                        raise LinkLost(is_suspect=False)
                    return await link.exchange(flight.request, flight.options, True)
        except TimeoutError:
            raise DeadlinePassed("the deadline passed before the image was classified") from None

    def _judge(self, flight: _Flight, lost: LinkLost) -> None:
        if lost.is_suspect and flight.is_suspect:
            self._quarantine.add(flight.request.image)
            self._metrics.pressure.count_poison(flight.model.name)
            raise PoisonImage("this image crashed the decoder twice, alone")
        flight.is_suspect = flight.is_suspect or lost.is_suspect
        self._metrics.pressure.count_resent(flight.model.name)

    def _read_answer(self, flight: _Flight, answer: Answer) -> Classification:
        message, payload = answer
        if isinstance(message, Failure):
            raise read_failure(message)
        result = Classification(
            request_id=flight.request.request_id,
            model=ModelRef(flight.model.name, flight.model.version, flight.model.digest),
            predictions=read_predictions(message, self._roster.find_card(flight.model).labels),
            tta=TtaUse(flight.asked, message.tta_used, message.views),
            timings_ms=read_timings(message, flight.arrived),
            logits=None if message.logits is None else tuple(message.logits),
            map=read_map(message, payload),
        )
        top = result.predictions[0] if result.predictions else None
        self._metrics.images.count_answer(
            flight.model.name,
            message.tta_used,
            message.views,
            result.timings_ms,
            None if top is None else (top.label, top.probability),
        )
        return result

    # Workers

    def _nearest(self, model: ServedModel) -> WorkerLink | None:
        links = [link for link in self._roster.list_links(model) if link.is_up and not link.is_retiring]
        if len(links) <= 1:
            return links[0] if links else None
        now = time.monotonic()
        return min(links, key=lambda link: link.predict_wait_ms(now))

    async def _wait_worker(self, flight: _Flight) -> WorkerLink:
        def find() -> WorkerLink | None:
            return self._nearest(flight.model)

        await self._wait_until(lambda: find() is not None, flight.request.deadline)
        link = find()
        if link is None:
            raise NoWorker(f"no worker of {flight.model.name} is up", retry_after_s=1.0)
        return link

    async def _wait_until(self, condition: Callable[[], bool], deadline: float) -> None:
        """Until `condition` holds; raises DeadlinePassed, or NoWorker when patience ends first."""
        patience = time.monotonic() + RESPAWN_PATIENCE_S
        try:
            async with asyncio.timeout(max(0.0, min(deadline, patience) - time.monotonic())):
                while not condition():
                    await self._changed.wait()
        except TimeoutError:
            if deadline <= patience:
                raise DeadlinePassed("the deadline passed before a worker was up") from None
            self._metrics.pressure.count_rejected("", "no_worker")
            detail = f"no worker came up within {RESPAWN_PATIENCE_S:.0f} s"
            raise NoWorker(detail, retry_after_s=RESPAWN_PATIENCE_S) from None

    def _drop_link(self, link: WorkerLink) -> None:
        self._roster.remove_link(link)
        self._tell_change()

    def _tell_change(self) -> None:
        self._generation += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def _predict_retry_s(self) -> float:
        now = time.monotonic()
        waits = [link.predict_wait_ms(now) for link in self._links.values() if link.is_up]
        return predict_retry_s(min(waits, default=RESPAWN_PATIENCE_S * 1000), 0.0)
