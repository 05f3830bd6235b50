"""/v1/models and /v1/status: what is served, by whom, how well."""

from typing import Any

from fastapi import APIRouter

from service.protocols.base import ProtocolContext
from service.protocols.rest.answers import describe_model, describe_status
from service.protocols.rest.schemas import ModelBody, ModelsBody, Problem, StatusBody


def make_router(context: ProtocolContext) -> APIRouter:
    """Routes about models and the processes that serve them."""
    router = APIRouter(tags=["models"])

    @router.get("/v1/models", response_model=ModelsBody, summary="Every model version")
    async def list_models() -> dict[str, Any]:
        return {"models": [describe_model(model) for model in context.classifier.list_models()]}

    @router.get(
        "/v1/models/{name}",
        response_model=ModelBody,
        responses={404: {"model": Problem}},
        summary="One model: name, or name@version",
    )
    async def find_model(name: str) -> dict[str, Any]:
        return describe_model(context.classifier.find_model(name))

    @router.get("/v1/status", response_model=StatusBody, tags=["operations"], summary="Processes and queues")
    async def read_status() -> dict[str, Any]:
        return describe_status(context.classifier.status())

    return router
