"""Batches as a worker computes them."""

from prometheus_client import Histogram

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

    def count_batch(self, views: int, compute_s: float) -> None:
        """One batch of `views` views took `compute_s` seconds."""
        self._views.observe(views)
        self._seconds.observe(compute_s)
