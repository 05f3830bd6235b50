"""What a batch will cost, in milliseconds, from its shape alone.

Measured at warm-up at a few sizes and interpolated by pixels, because a fully convolutional network's cost
follows the pixels it sees; then kept true by what batches really took (the same machine drifts by half within
minutes, and costs more when every core is busy).
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

SMOOTHING = 0.1  # weight of the newest batch: about the last ten count
NEAR_BEST = 1.03  # a batch is full at the smallest size within 3 % of the best cost per view
HANDLING_MS = 0.15  # fixed cost of handling one batch around the engine, measured with bench/engines.py
# A batch begins with cold caches, which warm-up never sees: between two of them a lane decodes and answers. A
# 224-pixel view in a batch of its own took 0.7 ms of 17 more in the service than one of two.
COLD_SHARE = 0.05
MAX_SHAPES = 1024  # remembered one by one; whole images of every size would be without end
EXTREME = 20.0  # a batch this many times off its prediction was a stall, and says no more than that


Remembered = TypeVar("Remembered", int, float)


@dataclass(frozen=True, slots=True)
class Measured:
    """`pixels` of a whole batch took `ms`."""

    pixels: int
    ms: float


class Curve:
    """Milliseconds as a function of a batch's pixels: linear between what was measured, and beyond it."""

    def __init__(self, points: Sequence[Measured]) -> None:
        """`points`: at least one; rising in pixels once sorted."""
        self._points = sorted(points, key=lambda point: point.pixels)
        self._pixels = [point.pixels for point in self._points]

    def read(self, pixels: int) -> float:
        """Predicted milliseconds; proportional to pixels outside what was measured on the large side."""
        last = self._points[-1]
        if pixels >= last.pixels:
            return last.ms * pixels / last.pixels
        at = bisect_left(self._pixels, pixels)
        above = self._points[at]
        if at == 0:  # smaller than anything measured: its fixed part is unknown, so not below half
            return above.ms * max(0.5, pixels / above.pixels)
        below = self._points[at - 1]
        part = (pixels - below.pixels) / (above.pixels - below.pixels)
        return below.ms + part * (above.ms - below.ms)


@dataclass(slots=True)
class Drift:
    """How far off predictions have been lately: 1.0 is exact, 1.3 is 30 % slower."""

    ratio: float = 1.0
    by_shape: dict[tuple[int, int], float] = field(default_factory=dict)

    def of(self, shape: tuple[int, int]) -> float:
        """The correction for a shape; for one never seen, that of all batches."""
        return self.by_shape.get(shape, self.ratio)

    def learn(self, shape: tuple[int, int], ratio: float) -> None:
        """A batch of `shape` took `ratio` times what the curve says."""
        if 1 / EXTREME < ratio < EXTREME:
            self.ratio += SMOOTHING * (ratio - self.ratio)
            known = self.by_shape.get(shape, self.ratio)
            _make_room(self.by_shape, shape)
            self.by_shape[shape] = known + SMOOTHING * (ratio - known)


class CostModel:
    """Costs of one engine at one precision. `threads` is 1 or all of the worker's, as in Engine.infer."""

    def __init__(self, narrow: Curve, wide: Curve, max_views: int) -> None:
        """`narrow`: one core a batch; `wide`: every core on one batch; `max_views`: most in any batch."""
        self._curves = {True: narrow, False: wide}
        self._drift = {True: Drift(), False: Drift()}
        self._max_views = max_views
        self._full: dict[tuple[int, int], int] = {}
        self._room: dict[tuple[int, int], int] = {}

    def predict(self, shape: tuple[int, int], views: int, threads: int = 1) -> float:
        """Milliseconds of a batch of `views` views of `shape` (height, width)."""
        is_narrow = threads == 1
        pixels = views * shape[0] * shape[1]
        return self._curves[is_narrow].read(pixels) * self._drift[is_narrow].of(shape) + HANDLING_MS

    def view_ms(self, shape: tuple[int, int]) -> float:
        """Milliseconds of one core for one view in a full batch."""
        full = self.full_views(shape)
        return self.predict(shape, full) / full

    def full_views(self, shape: tuple[int, int]) -> int:
        """Views beyond which a batch gets no cheaper per view: larger ones only add latency."""
        known = self._full.get(shape)
        if known is None:
            _make_room(self._full, shape)
            known = self._full[shape] = self._find_full(shape)
        return min(known, self._room.get(shape, known))

    def fit(self, shape: tuple[int, int], budget_ms: float) -> int:
        """Most views of `shape` that one core computes in `budget_ms`; at least 1."""
        most = int(budget_ms / self.view_ms(shape))
        return max(1, min(most, self._max_views, self._room.get(shape, self._max_views)))

    def observe(self, shape: tuple[int, int], views: int, threads: int, ms: float) -> None:
        """A batch took `ms`."""
        is_narrow = threads == 1
        expected = self._curves[is_narrow].read(views * shape[0] * shape[1])
        self._drift[is_narrow].learn(shape, ms / max(expected, 1e-6))

    def refuse(self, shape: tuple[int, int], views: int) -> None:
        """The device had no memory for that many views: never try as many again."""
        _make_room(self._room, shape)
        self._room[shape] = max(1, min(views // 2, self._room.get(shape, views)))

    def _find_full(self, shape: tuple[int, int]) -> int:
        sizes = [1 << power for power in range(self._max_views.bit_length())]
        curve = self._curves[True]
        beside_ms = HANDLING_MS + COLD_SHARE * curve.read(shape[0] * shape[1])
        per_view = [(curve.read(size * shape[0] * shape[1]) + beside_ms) / size for size in sizes]
        best = min(per_view)
        full = next(size for size, cost in zip(sizes, per_view, strict=True) if cost <= NEAR_BEST * best)
        return min(full, self._max_views)


def _make_room(by_shape: dict[tuple[int, int], Remembered], shape: tuple[int, int]) -> None:
    """Forget the shape that was remembered first, if `shape` is new and there are too many."""
    if shape not in by_shape and len(by_shape) >= MAX_SHAPES:
        by_shape.pop(next(iter(by_shape)), None)


def mean_smoothly(known: float | None, newest: float) -> float:
    """An exponentially weighted mean, beginning with the first value."""
    return newest if known is None else known + SMOOTHING * (newest - known)
