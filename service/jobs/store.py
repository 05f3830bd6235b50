"""The durable record of jobs: one row each in SQLite, by SQLAlchemy; images and results lie beside it.

WAL, so that readers never wait for the runner; synchronous=FULL, so that what was told to a caller survives
a power cut. Every method is one transaction, blocking: call it in a thread.
"""

import fcntl
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Row

Status = Literal["queued", "running", "paused", "done", "cancelled", "failed"]
OPEN: tuple[Status, ...] = ("queued", "running", "paused")
FILE = "jobs.sqlite"
LOCK = "jobs.lock"
BUSY_TIMEOUT_MS = 10_000

_metadata = sa.MetaData()
_jobs = sa.Table(
    "jobs",
    _metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("status", sa.String(16), nullable=False, index=True),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    sa.Column("is_cancelled", sa.Boolean, nullable=False, default=False),
    sa.Column("options", sa.LargeBinary, nullable=False),
    sa.Column("source", sa.Text, nullable=False, default=""),
    sa.Column("total", sa.Integer),
    sa.Column("done", sa.Integer, nullable=False, default=0),
    sa.Column("failed", sa.Integer, nullable=False, default=0),
    sa.Column("results_bytes", sa.BigInteger, nullable=False, default=0),
    sa.Column("spool_bytes", sa.BigInteger, nullable=False, default=0),
    sa.Column("rate_per_s", sa.Float, nullable=False, default=0.0),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("finished", sa.Float),
    sa.Column("caller", sa.Text, nullable=False, default=""),
    sa.Column("key", sa.Text),
    sa.Column("digest", sa.String(64), nullable=False, default=""),
    sa.UniqueConstraint("caller", "key"),
)


@dataclass(frozen=True, slots=True)
class Job:
    """One row. `total` is None until a source has been listed; `done` and `failed` never overlap.

    `results_bytes`: how much of the results file is durable. `options`: ClassifyOptions as JSON. `digest`: of
    the items, for idempotency. `created` and `finished` are Unix seconds.
    """

    id: str
    options: bytes
    created: float
    status: Status = "queued"
    reason: str = ""
    is_cancelled: bool = False
    source: str = ""
    total: int | None = None
    done: int = 0
    failed: int = 0
    results_bytes: int = 0
    spool_bytes: int = 0
    rate_per_s: float = 0.0
    finished: float | None = None
    caller: str = ""
    key: str | None = None
    digest: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it may still change."""
        return self.status in OPEN

    @property
    def lines(self) -> int:
        """How many items have their result."""
        return self.done + self.failed

    @property
    def eta_s(self) -> float | None:
        """Seconds until it is done at the present rate; None where nobody can know."""
        if self.total is None or not self.is_open or self.rate_per_s <= 0:
            return 0.0 if self.status == "done" else None
        return (self.total - self.lines) / self.rate_per_s


class KeyTaken(Exception):
    """That caller has used that idempotency key; `job` is what it got."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.id)
        self.job = job


class JobStore:
    """Every process opens its own on the same folder."""

    def __init__(self, root: Path) -> None:
        """Creates the table where it is not there; raises SQLAlchemyError."""
        self._log = f"{root / FILE}-wal"
        self._engine = sa.create_engine(
            f"sqlite:///{root / FILE}", connect_args={"timeout": BUSY_TIMEOUT_MS / 1000}
        )
        sa.event.listen(self._engine, "connect", _set_up_connection)
        _metadata.create_all(self._engine)

    def add(self, job: Job) -> None:
        """A new job; raises KeyTaken where its idempotency key has been used."""
        values = {column.name: getattr(job, column.name) for column in _jobs.columns}
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(_jobs).values(values))
        except sa.exc.IntegrityError:
            taken = self.find_key(job.caller, job.key)
            if taken is None:
                raise
            raise KeyTaken(taken) from None

    def find(self, id: str) -> Job | None:
        """The job of that id."""
        return self._find_one(_jobs.c.id == id)

    def find_key(self, caller: str, key: str | None) -> Job | None:
        """The job that caller submitted under that idempotency key."""
        return self._find_one(sa.and_(_jobs.c.caller == caller, _jobs.c.key == key))

    def list_open(self) -> list[Job]:
        """Every job that is not finished, oldest first."""
        return self._find_all(_jobs.c.status.in_(OPEN))

    def list_finished(self, before: float) -> list[Job]:
        """Every job finished before that Unix second."""
        return self._find_all(_jobs.c.finished < before)

    def list_ids(self) -> set[str]:
        """The ids of all jobs."""
        with self._engine.connect() as connection:
            return set(connection.scalars(sa.select(_jobs.c.id)))

    def change(self, id: str, **values: Any) -> None:
        """Set columns of one job."""
        with self._engine.begin() as connection:
            connection.execute(sa.update(_jobs).where(_jobs.c.id == id).values(values))

    def finish(self, id: str, status: Status, reason: str = "") -> None:
        """It is over: its images are about to be removed, its results stay."""
        self.change(id, status=status, reason=reason, finished=time.time(), spool_bytes=0, rate_per_s=0.0)

    def cancel(self, id: str) -> None:
        """Ask the runner to stop an open job."""
        with self._engine.begin() as connection:
            is_it = sa.and_(_jobs.c.id == id, _jobs.c.status.in_(OPEN))
            connection.execute(sa.update(_jobs).where(is_it).values(is_cancelled=True))

    def delete(self, id: str) -> None:
        """Forget a job."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(_jobs).where(_jobs.c.id == id))

    def count_bytes(self) -> int:
        """What all jobs hold on the disk: images and results."""
        total = sa.func.coalesce(sa.func.sum(_jobs.c.spool_bytes + _jobs.c.results_bytes), 0)
        with self._engine.connect() as connection:
            return int(connection.scalar(sa.select(total)) or 0)

    def read_stamp(self) -> tuple[int, int]:
        """Something else after each write of any process, and cheap to ask for."""
        try:
            found = os.stat(self._log)
        except OSError:
            return 0, 0
        return found.st_mtime_ns, found.st_size

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _find_one(self, condition: sa.ColumnElement[bool]) -> Job | None:
        found = self._find_all(condition)
        return found[0] if found else None

    def _find_all(self, condition: sa.ColumnElement[bool]) -> list[Job]:
        with self._engine.connect() as connection:
            rows: Sequence[Row[Any]] = connection.execute(
                sa.select(_jobs).where(condition).order_by(_jobs.c.created, _jobs.c.id)
            ).all()
        return [Job(**row._mapping) for row in rows]


def open_store(root: Path) -> JobStore:
    """The store in folder `root`, made where it is not there; raises OSError or SQLAlchemyError."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (root / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # SQLite does not wait when two turn on WAL or create at once
        return JobStore(root)


def _set_up_connection(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
