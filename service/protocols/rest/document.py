"""Makes FastAPI's OpenAPI document tell the truth about errors: problem documents, or a dialect's form."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.protocols.rest.dialects import speaks_problems
from service.protocols.rest.problems import list_statuses
from service.protocols.rest.schemas import Problem

PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
FRAMEWORK_SCHEMAS = ("HTTPValidationError", "ValidationError")


def make_document(app: FastAPI) -> dict[str, Any]:
    """The document of `app`. FastAPI would promise its own 422 for bad parameters; here that is a 400."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    for path, routes in document["paths"].items():
        mend = _mend_responses if speaks_problems(path) else _drop_framework_errors
        for route in routes.values():
            route["responses"] = mend(route["responses"])
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in FRAMEWORK_SCHEMAS:
        schemas.pop(name, None)
    schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    return document


def _is_framework_error(response: dict[str, Any]) -> bool:
    return "HTTPValidationError" in str(response)


def _drop_framework_errors(responses: dict[str, Any]) -> dict[str, Any]:
    return {status: told for status, told in responses.items() if not _is_framework_error(told)}


def _mend_responses(responses: dict[str, Any]) -> dict[str, Any]:
    slugs = list_statuses()
    mended: dict[str, Any] = {}
    for status, response in responses.items():
        is_error = status.isdigit() and int(status) >= 400
        if _is_framework_error(response):
            status, response = "400", {"description": ""}  # noqa: PLW2901  # the framework's 422
        if is_error:
            told = ", ".join(slugs.get(int(status), [])) or response["description"]
            response = response | {"description": told, "content": PROBLEM}  # noqa: PLW2901  # as above
        mended.setdefault(status, response)
    return dict(sorted(mended.items()))
