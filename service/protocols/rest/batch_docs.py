"""What the OpenAPI document says of /v1/batch."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from service.protocols.rest.classify import describe_parameters
from service.protocols.rest.problems import list_statuses
from service.protocols.rest.schemas import PredictionBody, Problem


class CountsBody(BaseModel):
    """Images of a job; `done` have predictions, `failed` an error, the rest neither yet."""

    total: int | None = Field(description="null until a source has been listed")
    done: int
    failed: int


class JobBody(BaseModel):
    """A durable job."""

    id: str
    status: Literal["queued", "running", "paused", "done", "cancelled", "failed"]
    reason: str | None = Field(description="why it is paused or failed")
    counts: CountsBody
    rate_per_s: float = Field(description="images per second, over the last half minute")
    eta_s: float | None = Field(description="seconds until it is done at that rate")
    created: float = Field(description="Unix seconds")
    finished: float | None = Field(description="Unix seconds")


class ItemErrorBody(BaseModel):
    """Why one image has no predictions."""

    type: str = Field(examples=["broken-image"])
    title: str
    detail: str


class LineBody(BaseModel):
    """One line of the answer: predictions, or an error."""

    index: int = Field(description="place in the batch, from 0")
    id: str | int | None = Field(description="the part's, member's or line's name")
    predictions: list[PredictionBody] | None = None
    logits: list[float] | None = None
    error: ItemErrorBody | None = None


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    slugs = list_statuses()
    return {
        status: {
            "description": ", ".join(slugs[status]),
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            "model": Problem,
        }
        for status in statuses
    }


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_TEXT = {"schema": {"type": "string"}}
_FORM = {
    "type": "object",
    "required": ["img"],
    "properties": {"img": {"type": "array", "items": {"type": "string", "format": "binary"}}},
}
_MANIFEST = {
    "type": "object",
    "required": ["source"],
    "additionalProperties": False,
    "properties": {"source": {"type": "string", "examples": ["s3://bucket/prefix"]}},
}
_LINES = {"application/x-ndjson": {"schema": {"$ref": "#/components/schemas/LineBody"}}, "text/csv": _TEXT}
_FORMAT = {
    "name": "format",
    "in": "query",
    "required": False,
    "schema": {"type": "string", "enum": ["ndjson", "csv", "parquet"]},
    "description": "instead of an Accept header; Parquet only for the results of a job",
}
_NOT_FOR_BATCHES = ("map", "class")

SUBMIT: dict[str, Any] = {
    "summary": "What is in these pictures?",
    "response_model": None,
    "responses": {
        200: {"model": LineBody, "description": "one line per image, in order", "content": _LINES},
        202: {"model": JobBody, "description": "a durable job, with Prefer: respond-async"},
        **_problems(400, 403, 404, 408, 409, 413, 415, 500, 503, 507),
    },
    "openapi_extra": {
        "parameters": [
            *(row for row in describe_parameters() if row["name"] not in _NOT_FOR_BATCHES),
            _FORMAT,
            {
                "name": "Prefer",
                "in": "header",
                "required": False,
                "schema": {"type": "string"},
                "description": "respond-async makes a durable job of the batch",
            },
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "maxLength": 255},
                "description": "the same key with the same images is the same job",
            },
        ],
        "requestBody": {
            "required": True,
            "description": "a form of img parts, a zip, tar or tar.gz, or lines of JSON with id and b64",
            "content": {
                "multipart/form-data": {"schema": _FORM},
                "application/zip": _BINARY,
                "application/x-tar": _BINARY,
                "application/gzip": _BINARY,
                "application/x-ndjson": _TEXT,
                "application/json": {"schema": _MANIFEST},
            },
        },
    },
}
FIND: dict[str, Any] = {
    "summary": "How far a job is",
    "response_model": JobBody,
    "responses": _problems(404, 500),
}
RESULTS: dict[str, Any] = {
    "summary": "The results of a job so far",
    "response_model": None,
    "responses": {
        200: {
            "model": LineBody,
            "description": "one line per finished image, in order",
            "content": _LINES | {"application/vnd.apache.parquet": _BINARY},
        },
        **_problems(400, 404, 500),
    },
    "openapi_extra": {"parameters": [_FORMAT]},
}
DELETE: dict[str, Any] = {
    "summary": "Cancel an open job, delete a finished one",
    "response_model": None,
    "responses": {
        202: {"model": JobBody, "description": "it is being cancelled; what is done is kept"},
        204: {"description": "it is deleted"},
        **_problems(404, 500),
    },
}
