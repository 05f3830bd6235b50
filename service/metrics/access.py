"""The API keys a frontend goes by."""

from prometheus_client import Gauge


class AccessMetrics:
    """Set once a second where SERVE_API_KEYS is; absent else."""

    def __init__(self) -> None:
        self._keys: Gauge | None = None
        self._stale: Gauge | None = None

    def set_keys(self, count: int, *, is_current: bool) -> None:
        """So many keys are known; `is_current`: they are what the file says, which else is broken."""
        if self._keys is None or self._stale is None:
            self._keys = _make("resnet_api_keys", "API keys known.")
            self._stale = _make("resnet_api_keys_stale", "1 while the file of API keys cannot be read.")
        self._keys.set(count)
        self._stale.set(not is_current)


def _make(name: str, meaning: str) -> Gauge:
    return Gauge(name, meaning, multiprocess_mode="max", registry=None)
