"""Which models are served and by how many workers."""

from collections.abc import Iterable

from prometheus_client import Gauge

from service.types import ModelSummary


class ModelMetrics:
    """Gauges that every frontend sets to the same value; the most recent one is shown."""

    def __init__(self) -> None:
        self._workers = Gauge(
            "resnet_workers",
            "Workers that are up.",
            ["model", "version"],
            multiprocess_mode="mostrecent",
            registry=None,
        )
        self._info = Gauge(
            "resnet_model_info",
            "1 for each version served, 0 for one that no longer is.",
            ["model", "version", "digest", "architecture"],
            multiprocess_mode="mostrecent",
            registry=None,
        )
        self._refused = Gauge(
            "resnet_refused_versions",
            "Versions in the repository that failed their checks.",
            ["model"],
            multiprocess_mode="mostrecent",
            registry=None,
        )
        self._names: set[str] = set()
        self._known: set[tuple[str, str, str, str]] = set()

    def set_models(self, summaries: Iterable[ModelSummary]) -> None:
        """What is served now; what was and no longer is becomes 0."""
        served: set[tuple[str, str, str, str]] = set()
        refused: dict[str, int] = {}
        for summary in summaries:
            refused[summary.name] = len(summary.refused)
            if summary.state == "refused":
                continue
            architecture = summary.card.architecture if summary.card else ""
            served.add((summary.name, str(summary.version), summary.digest, architecture))
            self._workers.labels(summary.name, str(summary.version)).set(summary.workers)
        for key in served:
            self._info.labels(*key).set(1)
        for key in self._known - served:
            self._info.labels(*key).set(0)
            self._workers.labels(*key[:2]).set(0)
        self._known = served
        for name in self._names | refused.keys():
            self._refused.labels(name).set(refused.get(name, 0))
        self._names = set(refused)
