"""Requests as callers see them: one count per request that came in, whatever became of it."""

from prometheus_client import Counter

ABORTED = "aborted"  # the code of a request whose caller left before the answer
OUR_FAULT = {"http": frozenset({"500"}), "grpc": frozenset({"INTERNAL", "UNKNOWN"})}


class RequestMetrics:
    """`route`: the route's template; `protocol`: http or grpc; `model`: a served name or other or "";
    `code`: the HTTP status, the gRPC code's name, or "aborted".
    """

    def __init__(self) -> None:
        self._total = Counter(
            "resnet_requests",
            "Requests by how they ended.",
            ["route", "protocol", "model", "code"],
            registry=None,
        )
        # Of their own, and there at 0 from the start: Prometheus sees no increase where a series begins at 1.
        faults = Counter(
            "resnet_faults", "Requests that failed by our own fault.", ["protocol"], registry=None
        )
        self._faults = {protocol: faults.labels(protocol) for protocol in OUR_FAULT}
        self._children: dict[tuple[str, str, str, str], Counter] = {}

    def count(self, route: str, protocol: str, model: str, code: str, requests: int = 1) -> None:
        """So many requests ended. Every text must come from a closed set."""
        key = (route, protocol, model, code)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._total.labels(*key)
        child.inc(requests)
        if code in OUR_FAULT[protocol]:
            self._faults[protocol].inc(requests)
