"""Makes FastAPI's OpenAPI document tell the truth about errors, in each dialect's form, and about keys."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.access.gate import ANY, Need
from service.protocols.rest.access import find_need
from service.protocols.rest.dialects import speaks_problems
from service.protocols.rest.problems import list_statuses
from service.protocols.rest.schemas import Problem

PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "an API key as the token"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
FRAMEWORK_SCHEMAS = ("HTTPValidationError", "ValidationError")


def make_document(app: FastAPI, *, needs_keys: bool) -> dict[str, Any]:
    """The document of `app`; `needs_keys`: it asks for API keys.

    FastAPI would promise its own 422 for bad parameters; here that is a 400.
    """
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for path, routes in document["paths"].items():
        need = find_need(path) if needs_keys else None
        mend = _mend_responses if speaks_problems(path) else _drop_framework_errors
        for route in routes.values():
            if need is not None:
                _lock(route, need, _find_error_content(path))
            route["responses"] = mend(route["responses"])
    if needs_keys:
        document["components"]["securitySchemes"] = SCHEMES
    for name in FRAMEWORK_SCHEMAS:
        schemas.pop(name, None)
    schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    return document


def _lock(route: dict[str, Any], need: Need, content: dict[str, Any]) -> None:
    """Say that a key is needed, and what answers a missing key and one that may not."""
    route["security"] = [{name: []} for name in SCHEMES]
    scope = "any valid key" if need == ANY else f"a key with the scope {need}"
    route["description"] = f"{route.get('description', '')}\n\nNeeds {scope}.".strip()
    refusals = {"401": "no valid API key", "403": "a key that may not"}
    for status, description in refusals.items():
        route["responses"][status] = {"description": description, "content": content}
    challenge = {"description": "how to authenticate", "schema": {"type": "string"}, "required": True}
    route["responses"]["401"]["headers"] = {"WWW-Authenticate": challenge}


def _find_error_content(path: str) -> dict[str, Any]:
    """How an error at `path` is told, as dialects.py does."""
    if speaks_problems(path):
        return PROBLEM
    name = "TorchServeError" if path.startswith("/predictions/") else "ErrorBody"
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


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
