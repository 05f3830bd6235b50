"""The parent of every other process: owns the listening sockets, the signals and the children.

One thread, one selector; no HTTP, gRPC, engine or CUDA in it. It starts children, connects every frontend to
every worker, replaces the dead, kills the stuck, rolls model versions over, and drains in one place.
"""

import logging
import selectors
import signal
import socket
import time
from enum import Enum

from service.board import Board
from service.children import Child, enlist, start_child
from service.listening import Listeners
from service.messages import (
    ChildState,
    Drain,
    FrontendUp,
    Heartbeat,
    ModelsChanged,
    Ready,
    Refused,
    StartFrontend,
    StartJobs,
    StartWorker,
    StateChanged,
    WorkerDown,
    WorkerRetiring,
    WorkerUp,
)
from service.recruits import Recruits, Role, exec_child
from service.rollout import Rollout, Target
from service.seats import Seat, describe_seat, is_serving, name_cause, name_seat
from service.settings import Settings
from service.spare import SpareWorker
from service.transport import make_work_pair

TICK_S = 0.1
STUCK_GRACE_S = 2.0  # a lane this long past its image's deadline will not come back
SILENCE_S = 6.0  # heartbeats come once a second; a stopped or looping process sends none
START_TIMEOUT_S = 120.0  # loading, self-test and warm-up of the largest network on a busy machine
REPOSITORY_POLL_S = 2.0
# The job runner imports its libraries when the first workers have done so: callers wait for those.
JOBS_WAIT_S = 10.0

log = logging.getLogger("supervisor")


class Phase(Enum):
    """What the service as a whole is doing."""

    SERVING = "serving"
    DRAINING_FRONTENDS = "draining frontends"
    DRAINING_WORKERS = "draining workers"


class Supervisor:
    """`run` blocks until the service has ended and returns its exit code."""

    def __init__(
        self,
        settings: Settings,
        listeners: Listeners,
        rollout: Rollout,
        devices: list[tuple[str, int]],
        *,
        metrics_dir: str,
        recruits: Recruits,
    ) -> None:
        """`devices`: (name, threads) pairs, such as [("cpu", 2)]; each gets workers_per_device workers.

        `recruits`: children that were started ahead.
        """
        self._settings, self._listeners, self._rollout = settings, listeners, rollout
        self._devices, self._metrics_dir = devices, metrics_dir
        self._recruits = recruits
        self._spare = SpareWorker(devices[0][0], waiting=recruits.take("worker"))
        self._selector = selectors.DefaultSelector()
        self._seats: list[Seat] = []
        self._phase = Phase.SERVING
        self._phase_ends = 0.0
        self._signals = 0
        self._next_poll = 0.0
        self._is_state_stale = False

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT, then drain; a second signal ends it at once."""
        wakeup = self._catch_signals()
        for slot in range(self._settings.frontends):
            self._seats.append(Seat("frontend", slot))
        self._seats.append(Seat("jobs", self._settings.frontends))
        self._jobs_wait_until = time.monotonic() + JOBS_WAIT_S
        self._reconcile()
        try:
            while self._phase is Phase.SERVING or any(seat.child for seat in self._seats):
                self._fill_seats()
                self._wait(wakeup)
                self._look_after()
        finally:
            for seat in self._seats:
                if seat.child:
                    seat.child.kill()
            self._spare.close()
            self._listeners.close()
        log.info("stopped")
        return 0

    # --- signals and phases ---

    def _catch_signals(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._on_signal())
        self._selector.register(ours, selectors.EVENT_READ)
        self._wakeup_writer = theirs  # held: set_wakeup_fd keeps only the number
        return ours

    def _on_signal(self) -> None:
        self._signals += 1

    def _obey_signals(self, now: float) -> None:
        if self._signals and self._phase is Phase.SERVING:
            log.info("draining", extra={"fields": {"timeout_s": self._settings.drain_timeout}})
            self._enter(Phase.DRAINING_FRONTENDS, now)
        if self._signals > 1:
            log.warning("second signal: ending at once")
            self._phase_ends = now

    def _enter(self, phase: Phase, now: float) -> None:
        if self._phase is Phase.SERVING:
            self._phase_ends = now + self._settings.drain_delay + self._settings.drain_timeout
            # The frontends still accept, and close when they no longer want to: were these open then, new
            # connections would wait in a queue that nobody reads, and be reset at our end.
            self._listeners.close()
        self._phase = phase
        children = self._senders() if phase is Phase.DRAINING_FRONTENDS else self._children("worker")
        for child in children:
            child.say(Drain())

    def _advance_drain(self, now: float) -> None:
        if self._phase is Phase.DRAINING_FRONTENDS and not any(
            seat.child for seat in self._seats if seat.role != "worker"
        ):
            self._enter(Phase.DRAINING_WORKERS, now)
        if self._phase is not Phase.SERVING and now >= self._phase_ends:
            for seat in self._seats:
                if seat.child:
                    log.warning("killed at the end of the drain", extra={"fields": name_seat(seat)})
                    seat.child.kill()

    # --- the loop's parts ---

    def _wait(self, wakeup: socket.socket) -> None:
        for key, _ in self._selector.select(TICK_S):
            if key.fileobj is wakeup:
                wakeup.recv(64)
            elif isinstance(key.data, Seat):
                self._hear(key.data)

    def _look_after(self) -> None:
        now = time.monotonic()
        self._obey_signals(now)
        for seat in list(self._seats):
            if seat.child and seat.child.process.poll() is not None:
                self._bury(seat)
            elif seat.child:
                self._watch(seat.child, now)
        self._advance_drain(now)
        if self._phase is Phase.SERVING and now >= self._next_poll:
            self._next_poll = now + REPOSITORY_POLL_S
            self._reconcile()
        if self._phase is Phase.SERVING and not any(w.state == "starting" for w in self._children("worker")):
            self._spare.make()
        if self._is_state_stale:
            self._is_state_stale = False
            self._tell_frontends(StateChanged(self._describe()))

    def _watch(self, child: Child, now: float) -> None:
        for lane in child.list_stuck(now, STUCK_GRACE_S):
            fields = {
                "worker": child.slot,
                "stage": lane.stage.name.lower(),
                "busy_s": round(now - lane.since, 1),
            }
            log.error("worker is stuck past a deadline; killed", extra={"fields": fields})
            child.kill()
            return
        limit = START_TIMEOUT_S if child.state == "starting" else SILENCE_S
        if now - child.heard > limit:
            log.error("no heartbeat; killed", extra={"fields": {"role": child.role, "slot": child.slot}})
            child.kill()

    # --- seats ---

    def _fill_seats(self) -> None:
        if self._phase is not Phase.SERVING:
            return
        now = time.monotonic()
        for seat in self._seats:
            if seat.role == "jobs" and now < self._jobs_wait_until and not self._has_all_workers():
                continue
            if seat.child is None and not seat.is_retiring and seat.backoff.may_start(now):
                self._start(seat)

    def _has_all_workers(self) -> bool:
        workers = [seat for seat in self._seats if seat.role == "worker"]
        return all(seat.child and seat.child.state == "up" for seat in workers)

    def _start(self, seat: Seat) -> None:
        settings = self._settings.to_json()
        if seat.role == "frontend":
            first = StartFrontend(seat.slot, settings, self._metrics_dir)
            recruit = self._recruits.take("frontend") or exec_child("frontend")
            child = enlist(recruit, seat.slot, first, self._listeners.list_fds(), seat.restarts)
        elif seat.role == "jobs":
            child = start_child(
                "jobs", seat.slot, StartJobs(seat.slot, settings, self._metrics_dir), [], seat.restarts
            )
        else:
            child = self._start_worker(seat, settings)
        seat.child = child
        self._selector.register(child.control.fileno(), selectors.EVENT_READ, seat)
        self._selector.register(child.pidfd, selectors.EVENT_READ, None)
        self._is_state_stale = True

    def _start_worker(self, seat: Seat, settings: bytes) -> Child:
        assert seat.target is not None
        board = Board.create()
        first = StartWorker(
            seat.slot, settings, self._metrics_dir, seat.target.path, seat.device, seat.threads
        )
        child = enlist(
            self._spare.take() or exec_child("worker"), seat.slot, first, [board.fd], seat.restarts
        )
        child.board, child.model, child.device = board, seat.target.model, seat.device
        return child

    def _hear(self, seat: Seat) -> None:
        child = seat.child
        if child is None:
            return
        try:
            received = child.control.receive()
        except OSError:
            received = None
        if received is None:  # it is gone or going; its pidfd says so
            self._selector.unregister(child.control.fileno())
            return
        child.heard = time.monotonic()
        message, _ = received
        if isinstance(message, Ready):
            self._on_ready(seat, child, message)
        elif isinstance(message, Refused):
            child.refusal = message.reason
        elif not isinstance(message, Heartbeat):
            log.error("unexpected message", extra={"fields": {"type": type(message).__name__}})

    def _on_ready(self, seat: Seat, child: Child, ready: Ready) -> None:
        child.state, child.cost_ms, seat.has_served = "up", ready.cost_ms, True
        took = round(time.monotonic() - child.started, 2)
        log.info(f"{seat.role} is up", extra={"fields": name_seat(seat) | {"pid": child.pid, "took_s": took}})
        if seat.role != "worker":
            child.say(self._describe_models())
            for worker in self._children("worker"):
                if worker.state == "up":
                    _connect(child, worker)
        else:
            for frontend in self._senders():
                if frontend.state == "up":
                    _connect(frontend, child)
            if seat.target is not None:
                self._rollout.prove(seat.target)
            self._retire_replaced(seat)
        self._is_state_stale = True

    def _bury(self, seat: Seat) -> None:
        child = seat.child
        assert child is not None
        code = child.process.returncode
        seat.last_words, seat.child = child.read_last_words(), None
        for fd in (child.control.fileno(), child.pidfd):
            if fd in self._selector.get_map():
                self._selector.unregister(fd)
        is_expected = seat.is_retiring or self._phase is not Phase.SERVING
        if child.role == "worker":
            self._tell_of_death(child, code)
        if child.refusal is not None and seat.target is not None:
            fields = name_seat(seat) | {"reason": child.refusal}
            log.error("model version refused", extra={"fields": fields})
            self._rollout.refuse(seat.target, child.refusal)
            self._seats.remove(seat)
            self._next_poll = 0.0
        elif is_expected:
            self._seats.remove(seat)
        else:
            fields = name_seat(seat) | {
                "pid": child.pid,
                "cause": name_cause(code),
                "last_words": seat.last_words,
            }
            log.error(f"{seat.role} died", extra={"fields": fields})
            seat.restarts += 1
            seat.backoff.note_death(time.monotonic(), was_up=child.state == "up", was_killed=code == -9)
        child.close()
        self._is_state_stale = True

    def _tell_of_death(self, child: Child, code: int) -> None:
        suspects = child.list_suspects(code)
        for frontend in self._senders():
            ids = [lane.id for lane in suspects if lane.frontend == frontend.slot]
            frontend.say(WorkerDown(child.slot, name_cause(code), ids))

    # --- model versions ---

    def _reconcile(self) -> None:
        """Seats for every target on every device; seats of versions no longer wanted retire once replaced."""
        targets = {target.key: target for target in self._rollout.choose()}
        seated = {seat.target.key for seat in self._seats if seat.target and not seat.is_retiring}
        fresh = [target for key, target in targets.items() if key not in seated]
        for target in fresh:
            log.info("loading", extra={"fields": {"model": f"{target.model.name}@{target.model.version}"}})
            for device, threads in self._devices:
                for _ in range(self._settings.workers_per_device):
                    slot = self._free_slot()
                    self._seats.append(Seat("worker", slot, target, device, threads))
        for seat in self._seats:
            if seat.target and not seat.is_retiring and seat.target.key not in targets:
                self._retire_if_replaced(seat, targets)
        self._tell_frontends(self._describe_models())

    def _retire_replaced(self, up: Seat) -> None:
        """A worker came up: the workers of other versions of its model that are no longer wanted may go."""
        targets = {target.key: target for target in self._rollout.choose()}
        for seat in self._seats:
            if seat.target and seat is not up and not seat.is_retiring and seat.target.key not in targets:
                self._retire_if_replaced(seat, targets)
        self._tell_frontends(self._describe_models())

    def _retire_if_replaced(self, seat: Seat, targets: dict[tuple[str, int, str], Target]) -> None:
        assert seat.target is not None
        heirs = [
            other
            for other in self._seats
            if other.target
            and other.target.key in targets
            and other.target.model.name == seat.target.model.name
        ]
        is_wanted = any(key[0] == seat.target.model.name for key in targets)
        if is_wanted and not all(heir.child and heir.child.state == "up" for heir in heirs):
            return
        seat.is_retiring = True
        if seat.child is None:
            self._seats.remove(seat)
            return
        log.info("retiring", extra={"fields": name_seat(seat)})
        seat.child.state = "retiring"
        self._tell_frontends(WorkerRetiring(seat.slot))
        seat.child.say(Drain())

    def _describe_models(self) -> ModelsChanged:
        served = {
            seat.target.key: seat.target.model for seat in self._seats if seat.target and is_serving(seat)
        }
        return ModelsChanged(
            self._settings.default_model, list(served.values()), self._rollout.list_refused()
        )

    # --- small things ---

    def _children(self, role: Role) -> list[Child]:
        return [seat.child for seat in self._seats if seat.role == role and seat.child]

    def _senders(self) -> list[Child]:
        """Whoever sends work to workers: the frontends and the job runner."""
        return self._children("frontend") + self._children("jobs")

    def _free_slot(self) -> int:
        """The lowest number no seat has: slots name metric files, so their number must stay bounded."""
        taken = {seat.slot for seat in self._seats if seat.role == "worker"}
        return next(slot for slot in range(len(taken) + 1) if slot not in taken)

    def _tell_frontends(self, message: WorkerRetiring | ModelsChanged | StateChanged) -> None:
        for frontend in self._senders():
            if frontend.state == "up":
                frontend.say(message)

    def _describe(self) -> list[ChildState]:
        return [describe_seat(seat) for seat in self._seats]


def _connect(frontend: Child, worker: Child) -> None:
    """Give both ends of a new connection away; the supervisor keeps neither."""
    assert worker.model is not None
    one, other = make_work_pair()
    with one, other:
        worker.say(FrontendUp(frontend.slot), other.fileno())
        up = WorkerUp(worker.slot, worker.device, worker.model, worker.cost_ms)
        frontend.say(up, one.fileno())
