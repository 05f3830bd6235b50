"""What a caller needs for each path while keys are on. What is not named here needs a valid key, so that a
route nobody thought of is not open.

Open to all: probes, because kubelets and balancers have no keys; the page, the documentation and their files,
because they hold nothing of anybody's. /metrics tells of everybody's load, so it has a scope of its own.
"""

from collections.abc import Callable

from service.access.gate import ANY, Gate, Need
from service.protocols.rest.exchange import CLASSIFY_PATH, Exchange

Admit = Callable[[Exchange], str]

PUBLIC = frozenset(
    {
        "/",
        "/livez",
        "/readyz",
        "/docs",
        "/openapi.json",
        "/v2/health/live",
        "/v2/health/ready",
        "/favicon.ico",
    }
)
PUBLIC_FOLDERS = ("/web/", "/docs/")


def find_need(path: str) -> Need | None:
    """The scope for `path` (a route's template will do), ANY for whoever has a key, None for everybody."""
    if path in PUBLIC or path.startswith(PUBLIC_FOLDERS):
        return None
    if path == "/metrics":
        return "metrics"
    if path == "/v1/batch" or path.startswith("/v1/batch/"):
        return "batch"
    is_inference = path.startswith("/v2/") and path.endswith("/infer")
    if path == CLASSIFY_PATH or path.startswith("/predictions/") or path.endswith(":predict") or is_inference:
        return "classify"
    return ANY


def make_admission(gate: Gate) -> Admit | None:
    """What the door asks of each request to the public port; None where no keys are asked for."""
    if gate.is_open:
        return None

    def admit(exchange: Exchange) -> str:
        need = find_need(exchange.path)
        return "" if need is None else gate.require(exchange.credential(), need).id

    return admit
