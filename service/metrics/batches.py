"""Batches as a worker computes them."""

from prometheus_client import Counter, Histogram

from service.metrics.buckets import SECONDS, VIEWS


class BatchMetrics:
    """The worker's own: how full its batches are and how long each computes. `model` is its model's name."""

    def __init__(self, model: str) -> None:
        views = Histogram(
            "resnet_batch_views", "Views computed together.", ["model"], buckets=VIEWS, registry=None
        )
        seconds = Histogram(
            "resnet_batch_seconds", "Computing one batch.", ["model"], buckets=SECONDS, registry=None
        )
        self._views, self._seconds = views.labels(model), seconds.labels(model)
        # For who asks about each size; there are at most SERVE_MAX_BATCH_VIEWS of them.
        self._sizes = Counter(
            "resnet_batches", "Batches by how many views they had.", ["model", "views"], registry=None
        )
        self._size_seconds = Counter(
            "resnet_batches_seconds", "Computing batches of so many views.", ["model", "views"], registry=None
        )
        self._model = model
        self._by_size: dict[int, tuple[Counter, Counter]] = {}

    def count_batch(self, views: int, compute_s: float) -> None:
        """One batch of `views` views took `compute_s` seconds."""
        self._views.observe(views)
        self._seconds.observe(compute_s)
        children = self._by_size.get(views)
        if children is None:
            labels = (self._model, str(views))
            children = self._by_size[views] = (
                self._sizes.labels(*labels),
                self._size_seconds.labels(*labels),
            )
        children[0].inc()
        children[1].inc(compute_s)
