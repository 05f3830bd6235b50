"""Turns looks of many requests into batches: one bucket per precision and view shape, no clock, no lock.

Within a bucket the earliest deadline goes first, interactive work before bulk. Views of different requests
and policies share a batch; a look larger than a batch is computed in parts. service/worker/queue.py decides
when a batch runs and how large it may be.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from service.worker.request import Request

Shape = tuple[int, int]
BucketKey = tuple[str, Shape]


@dataclass(frozen=True, slots=True)
class Batch:
    """Views to compute together: `entries` name a request and which view of its present look.

    `threads`: 1 or all of the worker's; `predicted_ms` as the cost model sees it.
    """

    precision: str
    shape: Shape
    entries: list[tuple[Request, int]]
    threads: int
    predicted_ms: float

    @property
    def wants_features(self) -> bool:
        """Whether any view in it needs the last feature map."""
        return any(request.look is not None and request.look.features for request, _ in self.entries)


@dataclass(slots=True, eq=False)
class Share:
    """The views of one look that have one shape; `taken` of them are in batches already."""

    request: Request
    indices: tuple[int, ...]
    taken: int = 0


Heap = list[tuple[float, int, Share]]


@dataclass(slots=True, eq=False)
class Bucket:
    """Shares of one precision and shape; `views` counts what is left, including what was given up since."""

    key: BucketKey
    interactive: Heap = field(default_factory=list)
    bulk: Heap = field(default_factory=list)
    views: int = 0

    def urgency(self) -> tuple[bool, float]:
        """Sorts before another bucket's if this one should go first."""
        return (False, self.interactive[0][0]) if self.interactive else (True, self.bulk[0][0])


class Batcher:
    """All buckets. Not thread-safe."""

    def __init__(self) -> None:
        self._buckets: dict[BucketKey, Bucket] = {}
        self._tickets = count()

    def __bool__(self) -> bool:
        return bool(self._buckets)

    @property
    def buckets(self) -> int:
        """How many precisions and shapes have views waiting."""
        return len(self._buckets)

    def add(self, request: Request) -> None:
        """Queue the views of the request's present look."""
        look = request.look
        assert look is not None
        if len(look.views) == 1:
            height, width, _ = look.views[0].shape
            self._push((request.precision, (height, width)), Share(request, (0,)))
            return
        shapes: dict[Shape, list[int]] = {}
        for index, view in enumerate(look.views):
            shapes.setdefault((view.shape[0], view.shape[1]), []).append(index)
        for shape, indices in shapes.items():
            self._push((request.precision, shape), Share(request, tuple(indices)))

    def first(self) -> Bucket | None:
        """The bucket whose work is the most urgent; None when nothing waits."""
        if not self._buckets:
            return None
        return min(self._buckets.values(), key=Bucket.urgency)

    def take(self, bucket: Bucket, most: int, most_bulk: int) -> list[tuple[Request, int]]:
        """Up to `most` views of `bucket`, at most `most_bulk` of them bulk, in order of urgency."""
        taken: list[tuple[Request, int]] = []
        self._take_from(bucket, bucket.interactive, most, taken)
        self._take_from(bucket, bucket.bulk, min(most, len(taken) + most_bulk), taken)
        self._forget_if_empty(bucket)
        return taken

    def drop_dead(self, now: float) -> list[Request]:
        """Remove what nobody waits for from the head of every bucket; returns the expired, to be answered.

        Only heads: what lies deeper is dropped when it gets there, before it can reach an engine.
        """
        expired: dict[int, Request] = {}
        for bucket in list(self._buckets.values()):
            for heap in (bucket.interactive, bucket.bulk):
                for request in self._drop_heads(bucket, heap, now):
                    expired[id(request)] = request
            self._forget_if_empty(bucket)
        return list(expired.values())

    def _push(self, key: BucketKey, share: Share) -> None:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(key)
        heap = bucket.bulk if share.request.is_bulk else bucket.interactive
        heappush(heap, (share.request.due, next(self._tickets), share))
        bucket.views += len(share.indices)

    def _take_from(self, bucket: Bucket, heap: Heap, most: int, taken: list[tuple[Request, int]]) -> None:
        while heap and len(taken) < most:
            share = heap[0][2]
            indices = share.indices[share.taken : share.taken + most - len(taken)]
            if share.request.is_open:
                taken.extend((share.request, index) for index in indices)
            else:
                indices = share.indices[share.taken :]
            share.taken += len(indices)
            bucket.views -= len(indices)
            if share.taken == len(share.indices):
                heappop(heap)

    def _drop_heads(self, bucket: Bucket, heap: Heap, now: float) -> Iterator[Request]:
        while heap:
            share = heap[0][2]
            if share.request.is_open:
                if share.request.deadline > now:
                    return
                yield share.request
            heappop(heap)
            bucket.views -= len(share.indices) - share.taken

    def _forget_if_empty(self, bucket: Bucket) -> None:
        if not bucket.interactive and not bucket.bulk:
            self._buckets.pop(bucket.key, None)
