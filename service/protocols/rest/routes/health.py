"""/livez, /readyz, /metrics: for probes and for Prometheus."""

from fastapi import APIRouter, Response

from service.errors import Draining, NoWorker
from service.metrics import CONTENT_TYPE
from service.protocols.base import ProtocolContext
from service.protocols.rest.schemas import HealthBody, Problem


def make_router(context: ProtocolContext) -> APIRouter:
    """Routes that answer from memory, however busy the workers are."""
    router = APIRouter(tags=["operations"])

    @router.get("/livez", summary="This frontend process answers")
    async def livez() -> HealthBody:
        return HealthBody(status="alive")

    @router.get(
        "/readyz",
        summary="At least one worker is up, and the service is not stopping",
        responses={503: {"model": Problem}},
    )
    async def readyz() -> HealthBody:
        if context.classifier.is_draining:
            raise Draining("this server is stopping", retry_after_s=1.0)
        if not context.classifier.is_ready:
            raise NoWorker("no worker is up", retry_after_s=1.0)
        return HealthBody(status="ready")

    @router.get(
        "/metrics",
        summary="Metrics of every process, in Prometheus' text format",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}},
    )
    async def metrics() -> Response:
        context.classifier.publish()
        return Response(context.metrics.render(), headers={"content-type": CONTENT_TYPE})

    return router
