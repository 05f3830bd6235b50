"""Makes FastAPI's OpenAPI document tell the truth about errors: all of them are problem documents."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.protocols.rest.problems import list_statuses
from service.protocols.rest.schemas import Problem

PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
FRAMEWORK_SCHEMAS = ("HTTPValidationError", "ValidationError")


def make_document(app: FastAPI) -> dict[str, Any]:
    """The document of `app`. FastAPI would promise its own 422 for bad parameters; here that is a 400."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    for path in document["paths"].values():
        for route in path.values():
            route["responses"] = _mend_responses(route["responses"])
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in FRAMEWORK_SCHEMAS:
        schemas.pop(name, None)
    schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    return document


def _mend_responses(responses: dict[str, Any]) -> dict[str, Any]:
    slugs = list_statuses()
    mended: dict[str, Any] = {}
    for status, response in responses.items():
        is_error = status.isdigit() and int(status) >= 400
        if is_error and "HTTPValidationError" in str(response):
            status, response = "400", {"description": ""}  # noqa: PLW2901  # the framework's 422
        if is_error:
            told = ", ".join(slugs.get(int(status), [])) or response["description"]
            response = response | {"description": told, "content": PROBLEM}  # noqa: PLW2901  # as above
        mended.setdefault(status, response)
    return dict(sorted(mended.items()))
