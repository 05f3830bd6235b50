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
from functools import partial

from service.access.gate import Gate
from service.admission import CAUTION, InflightBudget, Lease, check_wait, choose_policy, predict_retry_s
from service.answers import read_failure
from service.errors import (
    DeadlinePassed,
    Draining,
    NoWorker,
    Overloaded,
    PoisonImage,
    ServiceError,
)
from service.fairness import FairLine
from service.fleet import RESPAWN_PATIENCE_S, Fleet, FleetMessage
from service.flights import (
    Flight,
    Landing,
    Landings,
    check_options,
    count_together,
    read_classification,
    use_policy,
)
from service.links import Answer, LinkLost, Outcomes, WorkerLink
from service.messages import Failure, ModelsChanged, ServedModel
from service.metrics import FrontendMetrics
from service.quarantine import Quarantine
from service.settings import Settings
from service.types import (
    Classification,
    ClassifyOptions,
    ClassifyRequest,
    ModelSummary,
    ServiceStatus,
)

# What a worker has before it while others wait in the line of their keys: a batch to run and one to be made.
ROOM_BATCHES = 2


class Classifier:
    """Built once per frontend process, on its event loop; the supervisor's messages reach it by `apply`."""

    def __init__(self, settings: Settings, metrics: FrontendMetrics, gate: Gate | None = None) -> None:
        """`gate` None: callers are neither held to rates nor weighed."""
        self._gate = gate or Gate(None)
        self._settings = settings
        self._metrics = metrics
        self._fleet = Fleet(asyncio.get_running_loop())
        self._roster = self._fleet.roster
        self._quarantine = Quarantine()
        self._budget = InflightBudget(settings.max_inflight_bytes, self._predict_retry_s)
        self._suspects_lock = asyncio.Lock()
        self._lines: dict[str, FairLine] = {}  # by digest; empty where keys are off
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
                self._check_wait(model, link, deadline, caller)
        except ServiceError as error:
            self._metrics.images.count_failure(self.label_of(options.model), error.slug, 0.0)
            raise

    async def classify(self, request: ClassifyRequest) -> Classification:
        """Answer one image; raises ServiceError. Cancelling the caller's task cancels the work."""
        arrived = time.monotonic()
        try:
            return await self._fly(await self._start_flight(request, arrived))
        except ServiceError as error:
            self._fail(request, error, arrived)
            raise

    async def classify_slice(self, requests: Sequence[ClassifyRequest]) -> AsyncGenerator[Landings, None]:
        """What `classify` says of images that have options, deadline and caller in common: some at a time.

        Of bulk priority they travel together and cost less so. Closing the iterator cancels the work.
        """
        arrived = time.monotonic()
        link = None
        try:
            if requests[0].options.priority == "bulk" and not self._quarantine.holds_any:
                lead = await self._start_flight(requests[0], arrived)
                link = self._fleet.find_nearest(lead.model)
            if link is not None:
                self._admit(lead, link)
        except ServiceError as error:
            yield [(number, self._fail(request, error, arrived)) for number, request in enumerate(requests)]
            return
        together = self._fly_together(requests, lead, link) if link is not None else self._fly_alone(requests)
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
            self._drop_lines()

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

    # One image

    async def _start_flight(self, request: ClassifyRequest, arrived: float) -> Flight:
        if self._is_refusing:
            raise Draining("this server is stopping, ask another one", retry_after_s=1.0)
        await self._fleet.wait_known(request.deadline)
        options = request.options
        model = self._roster.resolve(options.model)
        card = self._roster.find_card(model)
        check_options(options, model, card)
        self._quarantine.check(request.image)
        if request.protocol != "batch":  # those are asked for by thousands, and yield to everybody else's
            self._gate.charge(request.caller)
        asked = options.tta or card.default_tta
        if options.tta is None:
            options = use_policy(options, asked)
        return Flight(request, model, options, asked, arrived)

    async def _fly(self, flight: Flight) -> Classification:
        link = self._fleet.find_nearest(flight.model)
        if link is None:
            return await self._deliver(flight, link)
        self._admit(flight, link)
        if not flight.request.caller or flight.options.priority == "bulk":
            return await self._deliver(flight, link)
        line = self._find_line(flight.model)
        has_waited = await line.wait_turn(flight.weigh(self._gate, link), flight.request.deadline)
        flight.due = time.monotonic()  # by deadlines whoever waited longest in the line would go first again
        try:
            return await self._deliver(flight, self._fleet.find_nearest(flight.model) if has_waited else link)
        finally:
            line.leave()

    async def _deliver(self, flight: Flight, link: WorkerLink | None) -> Classification:
        while True:
            if link is None:
                link = await self._wait_worker(flight)
            try:
                result = self._read_answer(flight, await self._exchange(flight, link))
            except LinkLost as lost:
                self._judge(flight, lost)
                link = None
            else:
                self._metrics.images.count_answer(result)
                return result

    async def _fly_together(
        self, requests: Sequence[ClassifyRequest], lead: Flight, link: WorkerLink
    ) -> AsyncGenerator[Landings, None]:
        flights = [
            Flight(request, lead.model, lead.options, lead.asked, lead.arrived) for request in requests
        ]
        lost: list[int] = []
        async with aclosing(link.exchange_slice(requests, lead.options)) as exchange:
            async for outcomes in exchange:
                yield self._land(flights, outcomes, lost)
        if lost:
            again = await asyncio.gather(*[self._try_again(flights[number]) for number in lost])
            yield list(zip(lost, again, strict=True))

    async def _fly_alone(self, requests: Sequence[ClassifyRequest]) -> AsyncGenerator[Landings, None]:
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

    def _land(self, flights: Sequence[Flight], outcomes: Outcomes, lost: list[int]) -> Landings:
        """How those ended that have; `lost` gets the places of those whose worker died."""
        landings: Landings = []
        for number, outcome in outcomes:
            flight = flights[number]
            try:
                if not isinstance(outcome, tuple):
                    raise outcome
                landings.append((number, self._read_answer(flight, outcome)))
            except ServiceError as error:
                landings.append((number, self._fail(flight.request, error, flight.arrived)))
            except LinkLost as death:
                self._judge(flight, death)
                lost.append(number)
        self._metrics.images.count_answers([one for _, one in landings if isinstance(one, Classification)])
        return landings

    async def _try_again(self, flight: Flight) -> Landing:
        try:
            return await self._deliver(flight, None)
        except ServiceError as error:
            return self._fail(flight.request, error, flight.arrived)

    def _fail(self, request: ClassifyRequest, error: ServiceError, arrived: float) -> ServiceError:
        took_s = time.monotonic() - arrived
        self._metrics.images.count_failure(self.label_of(request.options.model), error.slug, took_s)
        return error

    def _check_wait(self, model: ServedModel, link: WorkerLink, deadline: float, caller: str) -> float:
        """The predicted wait in milliseconds; raises Overloaded."""
        now = time.monotonic()
        wait_ms = CAUTION * link.predict_wait_ms(now)
        line = self._lines.get(model.digest) if caller else None
        if line is not None and line.is_waited_in:
            in_line_ms = line.predict_wait_ms(caller, self._gate.weigh(caller))
            wait_ms += in_line_ms / max(1, self._fleet.count_workers(model))
        try:
            check_wait(wait_ms, self._settings.max_wait_ms, (deadline - now) * 1000)
        except Overloaded:
            self._metrics.pressure.count_rejected(model.name, "wait")
            raise
        return wait_ms

    def _admit(self, flight: Flight, link: WorkerLink) -> None:
        wait_ms = self._check_wait(flight.model, link, flight.request.deadline, flight.request.caller)
        if self._settings.degrade and flight.options.priority != "bulk":  # a batch can wait instead
            used = choose_policy(flight.asked, link.cost_ms, wait_ms, self._settings.max_wait_ms)
            if used != flight.asked:
                flight.options = replace(flight.options, tta=used, scales=None, merge=None, pool=None)
                self._metrics.pressure.count_degraded(flight.model.name, flight.asked, used)

    def _find_line(self, model: ServedModel) -> FairLine:
        line = self._lines.get(model.digest)
        if line is None:
            room_ms = ROOM_BATCHES * self._settings.batch_budget_ms
            line = self._lines[model.digest] = FairLine(partial(self._predict_wait_ms, model), room_ms)
        return line

    def _drop_lines(self) -> None:
        """Of versions that are gone; who still stands in one keeps it until he is let through."""
        self._lines = {digest: line for digest, line in self._lines.items() if self._roster.has_card(digest)}

    def _predict_wait_ms(self, model: ServedModel) -> float:
        link = self._fleet.find_nearest(model)
        return 0.0 if link is None else link.predict_wait_ms(time.monotonic())

    async def _wait_worker(self, flight: Flight) -> WorkerLink:
        try:
            link = await self._fleet.wait_nearest(flight.request.options.model, flight.request.deadline)
        except NoWorker:
            self._metrics.pressure.count_rejected(flight.model.name, "no_worker")
            raise
        flight.model = link.model  # another version, where the first was replaced meanwhile
        return link

    async def _exchange(self, flight: Flight, link: WorkerLink) -> Answer:
        if not flight.is_suspect:
            return await link.exchange(flight.request, flight.options, False, flight.due)
        left_s = max(0.0, flight.request.deadline - time.monotonic())
        try:
            # One suspect at a time, so that a death has one cause.
            async with asyncio.timeout(left_s), self._suspects_lock:
                if not link.is_open:
                    raise LinkLost(is_suspect=False)
                return await link.exchange(flight.request, flight.options, True, flight.due)
        except TimeoutError:
            raise DeadlinePassed("the deadline passed before the image was classified") from None

    def _judge(self, flight: Flight, lost: LinkLost) -> None:
        if lost.is_suspect and flight.is_suspect:
            self._convict(flight)
            raise PoisonImage("this image crashed the decoder twice, the second time alone")
        flight.is_suspect = flight.is_suspect or lost.is_suspect
        self._metrics.pressure.count_resent(flight.model.name)

    def _convict(self, flight: Flight) -> None:
        self._quarantine.add(flight.request.image)
        self._metrics.pressure.count_poison(flight.model.name)

    def _read_answer(self, flight: Flight, answer: Answer) -> Classification:
        message, payload = answer
        if isinstance(message, Failure):
            error = read_failure(message)
            if isinstance(error, PoisonImage):
                self._convict(flight)
            raise error
        return read_classification(flight, message, payload, self._roster.find_card(flight.model).labels)

    def _predict_retry_s(self) -> float:
        nearest = self._fleet.find_nearest()
        wait_ms = RESPAWN_PATIENCE_S * 1000 if nearest is None else nearest.predict_wait_ms(time.monotonic())
        return predict_retry_s(wait_ms, 0.0)
