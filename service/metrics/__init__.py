"""What the service counts. The only room that knows prometheus_client; each file is one family."""

from pathlib import Path

from service.metrics.access import AccessMetrics
from service.metrics.batches import BatchMetrics
from service.metrics.images import ImageMetrics
from service.metrics.models import ModelMetrics
from service.metrics.pressure import PressureMetrics
from service.metrics.requests import ABORTED, RequestMetrics
from service.metrics.store import CONTENT_TYPE, open_store, read_store, render_metrics
from service.metrics.tally import Defer, Tally, count_at_once
from service.metrics.totals import ModelTotals, sum_totals

__all__ = ["ABORTED", "CONTENT_TYPE", "BatchMetrics", "FrontendMetrics", "ModelTotals", "open_worker_metrics"]


class FrontendMetrics:
    """Everything a frontend counts, kept in `directory` under its slot."""

    def __init__(self, directory: Path, slot: int, defer: Defer = count_at_once) -> None:
        """`defer`: see Tally."""
        open_store(directory, f"frontend-{slot}")
        self._directory = directory
        self.requests = RequestMetrics()
        self.images = ImageMetrics()
        self.pressure = PressureMetrics()
        self.models = ModelMetrics()
        self.access = AccessMetrics()
        self.tally = Tally(self.images, self.requests, defer)

    def render(self) -> bytes:
        """The metrics of all processes, in Prometheus' text format."""
        return render_metrics(self._directory)

    def sum_totals(self, model: str) -> ModelTotals:
        """What every process counted of the served name `model`."""
        return sum_totals(read_store(self._directory), model)


def open_worker_metrics(directory: Path, slot: int, model: str) -> BatchMetrics:
    """What worker `slot` counts, kept in `directory`."""
    open_store(directory, f"worker-{slot}")
    return BatchMetrics(model)
