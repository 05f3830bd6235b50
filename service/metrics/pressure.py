"""How close the service is to its limits, and what it did about it."""

from prometheus_client import Counter, Gauge


class PressureMetrics:
    """`reason`: bytes (held in flight), wait (predicted) or no_worker; `asked`, `used`: policies."""

    def __init__(self) -> None:
        self._rejected = Counter(
            "resnet_rejected", "Images refused at admission.", ["model", "reason"], registry=None
        )
        self._degraded = Counter(
            "resnet_degraded",
            "Images given a cheaper view policy under pressure.",
            ["model", "asked", "used"],
            registry=None,
        )
        self._resent = Counter(
            "resnet_resent", "Images sent to another worker after theirs died.", ["model"], registry=None
        )
        self._poison = Counter(
            "resnet_poison", "Images that killed a worker twice, alone.", ["model"], registry=None
        )
        self._inflight = Gauge(
            "resnet_inflight_bytes",
            "Encoded images held by the frontends.",
            multiprocess_mode="sum",
            registry=None,
        )
        self._wait = Gauge(
            "resnet_predicted_wait_seconds",
            "Predicted wait at the model's nearest worker.",
            ["model"],
            multiprocess_mode="mostrecent",
            registry=None,
        )
        self.set_inflight(0)
        self._rejected.labels("", "bytes")
        self._expected: set[str] = set()

    def expect(self, model: str) -> None:
        """That model is served: what is counted of it is there at 0, so that a first one is an increase."""
        if model in self._expected:
            return
        self._expected.add(model)
        for reason in ("wait", "no_worker"):
            self._rejected.labels(model, reason)
        self._resent.labels(model)
        self._poison.labels(model)

    def count_rejected(self, model: str, reason: str) -> None:
        """One image was refused."""
        self._rejected.labels(model, reason).inc()

    def count_degraded(self, model: str, asked: str, used: str) -> None:
        """One image got a cheaper policy."""
        self._degraded.labels(model, asked, used).inc()

    def count_resent(self, model: str) -> None:
        """One image went to another worker."""
        self._resent.labels(model).inc()

    def count_poison(self, model: str) -> None:
        """One image was found to be poison."""
        self._poison.labels(model).inc()

    def set_inflight(self, size_bytes: int) -> None:
        """This frontend holds so many bytes."""
        self._inflight.set(size_bytes)

    def set_wait(self, model: str, wait_s: float) -> None:
        """The predicted wait of `model` now."""
        self._wait.labels(model).set(wait_s)
