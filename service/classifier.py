"""The one door: every protocol gives it images and gets answers, or an error of service/errors.py.

It picks the nearest worker, holds the image until it is answered, and sends it elsewhere when a worker dies,
so that the caller sees nothing. It never looks at a pixel.
"""

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

from service.access.gate import Gate
from service.admission import InflightBudget, Lease, predict_retry_s
from service.errors import Draining, Overloaded, ServiceError
from service.fleet import RESPAWN_PATIENCE_S, Fleet, FleetMessage
from service.flights import Land, Landing, Landings, count_together
from service.messages import ModelsChanged
from service.metrics import FrontendMetrics
from service.pilot import Pilot
from service.settings import Settings
from service.types import Classification, ClassifyOptions, ClassifyRequest, ModelSummary, ServiceStatus


class Cancellable(Protocol):
    """Work that can be ended before its time."""

    def cancel(self) -> object:
        """Nobody waits for it any more."""
        ...


class Classifier:
    """Built once per frontend process, on its event loop; the supervisor's messages reach it by `apply`."""

    def __init__(self, settings: Settings, metrics: FrontendMetrics, gate: Gate | None = None) -> None:
        """`gate` None: callers are neither held to rates nor weighed."""
        self._gate = gate or Gate(None)
        self._settings = settings
        self._metrics = metrics
        self._fleet = Fleet(asyncio.get_running_loop())
        self._roster = self._fleet.roster
        self._pilot = Pilot(settings, metrics, self._gate, self._fleet)
        self._budget = InflightBudget(settings.max_inflight_bytes, self._predict_retry_s)
        self._is_draining = False
        self._is_refusing = False

    # What protocols use

    @property
    def is_ready(self) -> bool:
        """At least one worker is up, and this instance is not stopping."""
        return not self._is_draining and self._fleet.has_worker

    @property
    def is_draining(self) -> bool:
        """This instance is stopping: it answers what it has, and wants no more."""
        return self._is_draining

    @property
    def generation(self) -> int:
        """Grows with every change of workers, models or readiness."""
        return self._fleet.generation

    async def wait_change(self, seen: int) -> int:
        """Wait until `generation` differs from `seen`, and return it."""
        return await self._fleet.wait_change(seen)

    def reserve(self, size_bytes: int) -> Lease:
        """Hold room for a body before it is read, as a context manager; raises Overloaded, TooLarge."""
        try:
            return self._budget.reserve(size_bytes)
        except Overloaded:
            self._metrics.pressure.count_rejected("", "bytes")
            raise

    def check_admission(self, options: ClassifyOptions, deadline: float, caller: str = "") -> None:
        """Raises what `classify` would without looking at the image: UnknownModel, RateLimited, Overloaded.

        For protocols that know the options before the body: under overload a body is then not even read.
        """
        if self._is_refusing or not self._roster.is_known:
            return
        try:
            model = self._roster.resolve(options.model)
            self._gate.check_rate(caller)
            link = self._fleet.find_nearest(model)
            if link is not None:
                self._pilot.check_wait(model, link, deadline, caller)
        except ServiceError as error:
            self._metrics.images.count_failure(self.label_of(options.model), error.slug, 0.0)
            raise

    def launch(self, request: ClassifyRequest, land: Land) -> Cancellable:
        """Begin to answer one image; `land` is told once how it ended, after this has returned.

        Raises ServiceError where it is refused at once. Cancelling what this returns ends the work, and
        `land` is not told.
        """
        if not self._roster.is_known and not self._is_refusing:
            return asyncio.ensure_future(self._launch_late(request, land))
        arrived = time.monotonic()
        try:
            self._check_open()
            flight = self._pilot.prepare(request, arrived, land)
            self._pilot.start(flight)
        except ServiceError as error:
            self._pilot.fail(request, error, arrived)
            raise
        return flight

    async def classify(self, request: ClassifyRequest) -> Classification:
        """Answer one image; raises ServiceError. Cancelling the caller's task cancels the work."""
        landed: asyncio.Future[Landing] = asyncio.get_running_loop().create_future()

        def land(landing: Landing) -> None:
            if not landed.done():
                landed.set_result(landing)

        flight = self.launch(request, land)
        try:
            landing = await landed
        except asyncio.CancelledError:
            flight.cancel()
            raise
        if isinstance(landing, ServiceError):
            raise landing
        return landing

    async def classify_slice(self, requests: Sequence[ClassifyRequest]) -> AsyncGenerator[Landings, None]:
        """What `classify` says of images that have options, deadline and caller in common: some at a time.

        Of bulk priority they travel together and cost less so. Closing the iterator cancels the work.
        """
        arrived = time.monotonic()
        link, flights = None, []
        try:
            if requests[0].options.priority == "bulk" and not self._pilot.quarantine.holds_any:
                self._check_open()
                await self._fleet.wait_known(requests[0].deadline)
                lead = self._pilot.prepare(requests[0], arrived, _forget)
                link = self._fleet.find_nearest(lead.model)
                flights = [replace(lead, request=request) for request in requests]
            if link is not None:
                self._pilot.admit(lead, link)
        except ServiceError as error:
            failed = [self._pilot.fail(request, error, arrived) for request in requests]
            yield list(enumerate(failed))
            return
        together = (
            self._pilot.fly_together(flights, link) if link is not None else self._classify_alone(requests)
        )
        async with aclosing(together) as flying:
            async for landings in flying:
                yield landings

    def count_slice(self, options: ClassifyOptions) -> int:
        """How many images keep the nearest worker busy for about one bulk slice (SERVE_BULK_SLICE_MS)."""
        try:
            model = self._roster.resolve(options.model)
        except ServiceError:  # nobody is known yet, or not that one
            return count_together(None, "", 0.0)
        tta = options.tta or self._roster.find_card(model).default_tta
        return count_together(self._fleet.find_nearest(model), tta, self._settings.bulk_slice_ms)

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
        return ServiceStatus(
            is_ready=self.is_ready,
            is_draining=self._is_draining,
            inflight_bytes=self._budget.held_bytes,
            max_inflight_bytes=self._budget.limit_bytes,
            children=self._fleet.list_children(),
            workers=self._fleet.list_workers(),
        )

    def publish(self) -> None:
        """Bring the gauges up to date; called before they are shown and once a second."""
        self._metrics.pressure.set_inflight(self._budget.held_bytes)
        summaries = self._roster.list_summaries()
        self._metrics.models.set_models(summaries)
        for summary in summaries:
            if summary.state != "refused":
                self._metrics.images.expect(summary.name)
                self._metrics.pressure.expect(summary.name)
        for name in {summary.name for summary in summaries if summary.is_default_version}:
            link = self._fleet.find_nearest(self._roster.resolve(name))
            if link is not None:
                self._metrics.pressure.set_wait(name, link.predict_wait_ms(time.monotonic()) / 1000)

    # What the frontend process uses

    def apply(self, message: FleetMessage, sock: socket.socket | None = None) -> None:
        """Take one message of the supervisor's; `sock` is WorkerUp's connection."""
        self._fleet.apply(message, sock)
        if isinstance(message, ModelsChanged):
            self._pilot.drop_lines()

    def drain(self) -> None:
        """Not ready any more; what comes is still answered."""
        self._is_draining = True
        self._fleet.tell_change()

    def refuse(self) -> None:
        """From now on new images raise Draining."""
        self._is_refusing = True

    def close(self) -> None:
        """Drop every connection."""
        self._fleet.close()

    async def _launch_late(self, request: ClassifyRequest, land: Land) -> None:
        """Before the supervisor has said what is served."""
        arrived = time.monotonic()
        try:
            await self._fleet.wait_known(request.deadline)
        except ServiceError as error:
            land(self._pilot.fail(request, error, arrived))
            return
        try:
            landing: Landing = await self.classify(request)
        except ServiceError as error:
            landing = error
        land(landing)

    async def _classify_alone(self, requests: Sequence[ClassifyRequest]) -> AsyncGenerator[Landings, None]:
        tasks = [asyncio.ensure_future(self._try_alone(request)) for request in requests]
        try:
            for number, task in enumerate(tasks):
                yield [(number, await task)]
        finally:
            for task in tasks:
                task.cancel()

    async def _try_alone(self, request: ClassifyRequest) -> Landing:
        try:
            return await self.classify(request)
        except ServiceError as error:
            return error

    def _check_open(self) -> None:
        if self._is_refusing:
            raise Draining("this server is stopping, ask another one", retry_after_s=1.0)

    def _predict_retry_s(self) -> float:
        nearest = self._fleet.find_nearest()
        wait_ms = RESPAWN_PATIENCE_S * 1000 if nearest is None else nearest.predict_wait_ms(time.monotonic())
        return predict_retry_s(wait_ms, 0.0)


def _forget(_: Landing) -> None:
    """For images that travel together: what became of them is told by place."""
