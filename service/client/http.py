"""The client's HTTP side: one request out, one typed answer or error in."""

import base64
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from service.client.outcome import ConnectionFailed, ModelInfo
from service.client.tls import ClientTls
from service.errors import Internal, ServiceError, find_error
from service.types import (
    ActivationMap,
    Box,
    Classification,
    ClassifyOptions,
    ModelRef,
    Prediction,
    Timings,
    TtaUse,
)
from service.version import NAME, find_version

DEFAULT_TIMEOUT_S = 30.0  # each request states its own


class HttpTransport:
    """Speaks REST to one server; raises ServiceError, ConnectionFailed among them."""

    def __init__(self, url: str, api_key: str | None, connections: int, tls: ClientTls | None = None) -> None:
        headers = {"User-Agent": f"{NAME}-client/{find_version()}"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._http = httpx.AsyncClient(
            base_url=url,
            headers=headers,
            limits=limits,
            verify=True if tls is None else tls.make_context(),
            timeout=DEFAULT_TIMEOUT_S,
        )

    async def classify(
        self, image: bytes, options: ClassifyOptions, timeout_s: float, request_id: str | None
    ) -> Classification:
        """Post the image as the raw body."""
        headers = {"Request-Timeout": f"{timeout_s:.3f}", "Content-Type": "application/octet-stream"}
        if request_id:
            headers["X-Request-Id"] = request_id
        answer = await self._ask(
            "POST", "/v1/classify", timeout_s, params=write_query(options), headers=headers, content=image
        )
        return read_classification(answer)

    async def list_models(self, timeout_s: float) -> list[ModelInfo]:
        """Ask which models answer."""
        answer = await self._ask("GET", "/v1/models", timeout_s)
        return [_read_model(model) for model in answer["models"]]

    async def is_ready(self, timeout_s: float) -> bool:
        """Whether /readyz says so; False also when nobody answers."""
        try:
            return (await self._http.get("/readyz", timeout=timeout_s)).status_code == 200
        except httpx.HTTPError:
            return False

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def _ask(self, method: str, path: str, timeout_s: float, **request: Any) -> dict[str, Any]:
        try:
            response = await self._http.request(method, path, timeout=timeout_s, **request)
        except httpx.TimeoutException as err:
            raise find_error("deadline-passed")(f"no answer within {timeout_s:.3g} s") from err
        except httpx.HTTPError as err:
            raise ConnectionFailed(f"{self._http.base_url}: {err or type(err).__name__}") from err
        if response.is_success:
            body: dict[str, Any] = response.json()
            return body
        raise read_error(response)


def write_query(options: ClassifyOptions) -> dict[str, str]:
    """The query string that asks for `options`; what is at its default is left out."""
    asked: Mapping[str, object] = {
        "model": options.model or None,
        "top_k": options.top_k if options.top_k != ClassifyOptions().top_k else None,
        "tta": options.tta,
        "scales": ",".join(map(str, options.scales)) if options.scales else None,
        "merge": options.merge,
        "pool": options.pool,
        "map": "true" if options.wants_map else None,
        "class": options.map_class,
        "logits": "true" if options.wants_logits else None,
        "precision": options.precision,
        "priority": options.priority if options.priority != "interactive" else None,
    }
    return {name: str(value) for name, value in asked.items() if value is not None}


def read_error(response: httpx.Response) -> ServiceError:
    """The ServiceError a problem+json answer stands for; Internal for anything else a proxy may say."""
    try:
        body = response.json()
        slug, detail = str(body["type"]).rsplit("/", 1)[-1], str(body.get("detail") or body["title"])
    except (ValueError, KeyError, TypeError):
        slug, detail = "", f"HTTP {response.status_code}: {response.text[:200]}"
    if not slug and response.status_code in (502, 503, 504):
        slug = "overloaded"
    error = find_error(slug) if slug else Internal
    made = error(detail)
    made.retry_after_s = read_retry_after_s(response.headers.get("Retry-After", ""))
    return made


def read_retry_after_s(text: str) -> float | None:
    """Seconds from a Retry-After of seconds, or of a date as a proxy may send it; None for anything else."""
    try:
        if text.isascii() and text.isdigit():
            return float(text)
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def read_classification(body: dict[str, Any]) -> Classification:
    """A Classification from the JSON of an answer."""
    heat = body.get("map")
    return Classification(
        request_id=body["request_id"],
        model=ModelRef(**body["model"]),
        predictions=tuple(Prediction(**one) for one in body["predictions"]),
        tta=TtaUse(**body["tta"]),
        timings_ms=Timings(**body["timings_ms"]),
        logits=tuple(body["logits"]) if body.get("logits") is not None else None,
        map=_read_map(heat) if heat else None,
    )


def _read_map(heat: dict[str, Any]) -> ActivationMap:
    rows = tuple(tuple(row) for row in heat["array"])
    box = heat["box"]
    made = Box(**box) if isinstance(box, dict) else Box(*box)
    return ActivationMap(base64.b64decode(heat["png"]), rows, heat["class"], made)


def _read_model(model: dict[str, Any]) -> ModelInfo:
    policies = tuple(sorted(model["tta"]["cost_ms"])) if model["tta"] else ()
    return ModelInfo(model["name"], model["version"], model["default"], tuple(model["labels"]), policies)
