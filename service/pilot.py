"""Flies images to workers and back: the nearest one first, another when it dies, suspects one at a time.

An image whose worker is up needs no task and no future: it is sent, and its flight is told what became of it.
Only what goes wrong on the way (no worker, a line of keys, a death) is a coroutine.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

from service.access.gate import Gate
from service.admission import CAUTION, check_wait, choose_policy
from service.answers import read_failure
from service.errors import DeadlinePassed, Internal, NoWorker, Overloaded, PoisonImage, ServiceError
from service.fairness import FairLine, Turn
from service.fleet import Fleet
from service.flights import Flight, Land, Landing, Landings, check_options, read_classification, use_policy
from service.links import Answer, LinkLost, Outcome, Outcomes, WorkerLink
from service.messages import Failure, ServedModel
from service.metrics import FrontendMetrics
from service.quarantine import Quarantine
from service.settings import Settings
from service.types import Classification, ClassifyRequest

# What a worker has before it while others wait in the line of their keys: a batch to run and one to be made.
ROOM_BATCHES = 2

log = logging.getLogger(__name__)


class Pilot:
    """One per Classifier, on its event loop."""

    def __init__(self, settings: Settings, metrics: FrontendMetrics, gate: Gate, fleet: Fleet) -> None:
        self.quarantine = Quarantine()
        self._settings, self._metrics, self._gate = settings, metrics, gate
        self._fleet, self._roster = fleet, fleet.roster
        self._suspects_lock = asyncio.Lock()
        self._lines: dict[str, FairLine] = {}  # by digest; empty where keys are off

    def prepare(self, request: ClassifyRequest, arrived: float, land: Land) -> Flight:
        """Check what is asked, and count it against the caller's rate; raises ServiceError."""
        options = request.options
        model = self._roster.resolve(options.model)
        card = self._roster.find_card(model)
        check_options(options, model, card)
        self.quarantine.check(request.image)
        if request.protocol != "batch":  # those are asked for by thousands, and yield to everybody else's
            self._gate.charge(request.caller)
        asked = options.tta or card.default_tta
        if options.tta is None:
            options = use_policy(options, asked)
        return Flight(request, model, options, asked, arrived, land, self._settle)

    def start(self, flight: Flight) -> None:
        """Send it to the nearest worker, now or when there is one; raises ServiceError for a refusal."""
        link = self._fleet.find_nearest(flight.model)
        if link is None:
            flight.task = self._run(self._fly_late(flight))
            return
        self.admit(flight, link)
        if flight.request.caller and flight.options.priority != "bulk":
            line = self._find_line(flight.model)
            turn = line.enter(flight.weigh(self._gate, link))
            if turn is not None:
                flight.task = self._run(self._fly_in_turn(flight, line, turn))
                return
            self._let_through(flight, line)
        self._send(flight, link)

    def check_wait(self, model: ServedModel, link: WorkerLink, deadline: float, caller: str) -> float:
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

    def admit(self, flight: Flight, link: WorkerLink) -> None:
        """Raises Overloaded; under SERVE_DEGRADE and pressure the flight's policy becomes a cheaper one."""
        wait_ms = self.check_wait(flight.model, link, flight.request.deadline, flight.request.caller)
        if self._settings.degrade and flight.options.priority != "bulk":  # a batch can wait instead
            used = choose_policy(flight.asked, link.cost_ms, wait_ms, self._settings.max_wait_ms)
            if used != flight.asked:
                flight.options = replace(flight.options, tta=used, scales=None, merge=None, pool=None)
                self._metrics.pressure.count_degraded(flight.model.name, flight.asked, used)

    async def fly_together(
        self, flights: Sequence[Flight], link: WorkerLink
    ) -> AsyncGenerator[Landings, None]:
        """Bulk flights that have options and deadline in common, in one frame: some landings at a time."""
        lost: list[int] = []
        requests = [flight.request for flight in flights]
        async with aclosing(link.exchange_slice(requests, flights[0].options)) as exchange:
            async for outcomes in exchange:
                yield self._land_some(flights, outcomes, lost)
        if lost:
            again = await asyncio.gather(*[self._try_again(flights[number]) for number in lost])
            yield list(zip(lost, again, strict=True))

    def fail(self, request: ClassifyRequest, error: ServiceError, arrived: float) -> ServiceError:
        """Count that an image ended with `error`, which is returned."""
        took_s = time.monotonic() - arrived
        model = self._roster.label_of(request.options.model)
        self._metrics.images.count_failure(model, error.slug, took_s)
        return error

    def drop_lines(self) -> None:
        """Of versions that are gone; who still stands in one keeps it until he is let through."""
        self._lines = {digest: line for digest, line in self._lines.items() if self._roster.has_card(digest)}

    # One image

    def _send(self, flight: Flight, link: WorkerLink) -> None:
        flight.id = link.send(flight.request, flight.options, flight, due=flight.due)
        flight.link = link

    def _settle(self, flight: Flight, outcome: Outcome) -> None:
        """What the worker that `flight` was sent to made of it."""
        flight.link = None
        try:
            if isinstance(outcome, LinkLost):
                self._judge(flight, outcome)
                flight.task = self._run(self._fly_late(flight))
                return
            landing: Landing = self._read_outcome(flight, outcome)
        except ServiceError as error:
            landing = self.fail(flight.request, error, flight.arrived)
        except Exception:  # the line to the worker must go on
            log.exception("unforeseen answer", extra={"fields": {"request_id": flight.request.request_id}})
            landing = self.fail(flight.request, Internal("the worker's answer is not one"), flight.arrived)
        flight.end(landing)

    def _read_outcome(self, flight: Flight, outcome: Answer | DeadlinePassed) -> Classification:
        if isinstance(outcome, DeadlinePassed):
            raise outcome
        result = self._read_answer(flight, outcome)
        self._metrics.tally.count_answer(result)
        return result

    async def _fly_late(self, flight: Flight) -> None:
        """From when there is a worker again."""
        flight.end(await self._try_again(flight))

    async def _fly_in_turn(self, flight: Flight, line: FairLine, turn: Turn) -> None:
        """From when its key's turn has come."""
        try:
            await line.wait(turn, flight.request.deadline)
        except ServiceError as error:
            flight.end(self.fail(flight.request, error, flight.arrived))
            return
        self._let_through(flight, line)
        flight.end(await self._try_again(flight))

    @staticmethod
    def _let_through(flight: Flight, line: FairLine) -> None:
        flight.line = line
        flight.due = time.monotonic()  # by deadlines whoever waited longest would go first again

    async def _try_again(self, flight: Flight) -> Landing:
        try:
            return await self._deliver(flight)
        except ServiceError as error:
            return self.fail(flight.request, error, flight.arrived)

    async def _deliver(self, flight: Flight) -> Classification:
        link = self._fleet.find_nearest(flight.model)
        while True:
            if link is None:
                link = await self._wait_worker(flight)
            try:
                return self._read_outcome(flight, await self._exchange(flight, link))
            except LinkLost as lost:
                self._judge(flight, lost)
                link = None

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
        self.quarantine.add(flight.request.image)
        self._metrics.pressure.count_poison(flight.model.name)

    def _read_answer(self, flight: Flight, answer: Answer) -> Classification:
        message, payload = answer
        if isinstance(message, Failure):
            error = read_failure(message)
            if isinstance(error, PoisonImage):
                self._convict(flight)
            raise error
        return read_classification(flight, message, payload, self._roster.find_card(flight.model).labels)

    # Several

    def _land_some(self, flights: Sequence[Flight], outcomes: Outcomes, lost: list[int]) -> Landings:
        """How those ended that have; `lost` gets the places of those whose worker died."""
        landings: Landings = []
        for number, outcome in outcomes:
            flight = flights[number]
            try:
                if isinstance(outcome, LinkLost):
                    self._judge(flight, outcome)
                    lost.append(number)
                else:
                    landings.append((number, self._read_outcome(flight, outcome)))
            except ServiceError as error:
                landings.append((number, self.fail(flight.request, error, flight.arrived)))
        return landings

    # The line of keys

    def _find_line(self, model: ServedModel) -> FairLine:
        line = self._lines.get(model.digest)
        if line is None:
            room_ms = ROOM_BATCHES * self._settings.batch_budget_ms
            line = self._lines[model.digest] = FairLine(partial(self._predict_wait_ms, model), room_ms)
        return line

    def _predict_wait_ms(self, model: ServedModel) -> float:
        link = self._fleet.find_nearest(model)
        return 0.0 if link is None else link.predict_wait_ms(time.monotonic())

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work)
