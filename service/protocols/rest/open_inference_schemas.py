"""The shapes of the Open Inference Protocol's bodies for the OpenAPI document."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.protocols.open_inference_tensors import INPUT, OUTPUT


class ErrorBody(BaseModel):
    """What went wrong."""

    error: str


class LiveBody(BaseModel):
    """The process answers."""

    live: bool


class ReadyBody(BaseModel):
    """The server is ready for inference."""

    ready: bool


class ModelReadyBody(BaseModel):
    """The model is ready for inference."""

    name: str
    ready: bool


class ServerBody(BaseModel):
    """This server."""

    name: str
    version: str
    extensions: list[str]


class TensorBody(BaseModel):
    """One tensor; -1 is a dimension of any size."""

    name: str
    datatype: str
    shape: list[int]


class MetadataBody(BaseModel):
    """A model's tensors."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorBody]
    outputs: list[TensorBody]


class ConfigTensorBody(BaseModel):
    """One tensor without the batch's dimension."""

    name: str
    data_type: str
    dims: list[int]


class ConfigBody(BaseModel):
    """A model's tensors, as a configuration file says it."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[ConfigTensorBody]
    output: list[ConfigTensorBody]


class DurationBody(BaseModel):
    """How often, and how many nanoseconds altogether."""

    count: int
    ns: int


class StagesBody(BaseModel):
    """Where time was spent."""

    success: DurationBody
    fail: DurationBody
    queue: DurationBody
    compute_input: DurationBody
    compute_infer: DurationBody
    compute_output: DurationBody


class BatchStatisticsBody(BaseModel):
    """Batches of one size; images are decoded before they are batched."""

    batch_size: int = Field(description="views")
    compute_input: DurationBody
    compute_infer: DurationBody
    compute_output: DurationBody


class ModelStatisticsBody(BaseModel):
    """One model; versions of one name share their counts."""

    name: str
    version: str
    last_inference: int = Field(description="milliseconds since 1970")
    inference_count: int = Field(description="images")
    execution_count: int = Field(description="batches")
    inference_stats: StagesBody
    batch_stats: list[BatchStatisticsBody]


class StatisticsBody(BaseModel):
    """What was inferred."""

    model_stats: list[ModelStatisticsBody]


class IndexBody(BaseModel):
    """One version of the repository: READY or UNAVAILABLE, and why."""

    name: str
    version: str
    state: str
    reason: str


class OutputBody(BaseModel):
    """`data`: probabilities by class, or `value:index:label`; absent where they follow as raw bytes."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int] | None = None
    data: list[float] | list[str] | None = None


class InferParametersBody(BaseModel):
    """The view policy asked for, the one used (one for each image where they differ), and views in all."""

    tta_asked: str
    tta_used: str
    tta_views: int


class InferResponseBody(BaseModel):
    """The answer; the caller's `id` comes back."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_version: str
    id: str | None = None
    parameters: InferParametersBody
    outputs: list[OutputBody]


def describe_index_body() -> dict[str, Any]:
    """The request's body of the repository index, for the OpenAPI document."""
    ready = {"type": ["boolean", "null"], "description": "leave out what is not ready"}
    schema = {"type": ["object", "null"], "properties": {"ready": ready}}
    return {"requestBody": {"required": False, "content": {"application/json": {"schema": schema}}}}


def describe_infer_body() -> dict[str, Any]:
    """The request's body and headers for the OpenAPI document."""
    size = {"type": "integer", "minimum": 1}
    tensor = {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"type": "string", "enum": [INPUT]},
            "datatype": {"type": "string", "enum": ["BYTES", "UINT8"]},
            "shape": {"type": "array", "items": size, "minItems": 1, "maxItems": 2},
            "parameters": {"type": "object"},
            "data": {"type": "array", "description": "base64 strings (BYTES) or numbers of 0..255 (UINT8)"},
        },
    }
    asked = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "enum": [OUTPUT]},
            "parameters": {
                "type": "object",
                "properties": {
                    "classification": {"type": "integer", "minimum": 0, "maximum": 1_000_000},
                    "binary_data": {"type": "boolean"},
                },
            },
        },
    }
    request = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {
                "type": "object",
                "description": "tta, priority, timeout (microseconds), scales, merge, pool, precision",
            },
            "inputs": {"type": "array", "items": tensor, "minItems": 1, "maxItems": 1},
            "outputs": {"type": "array", "items": asked},
        },
    }
    return {
        "requestBody": {
            "required": True,
            "description": "JSON; with Inference-Header-Content-Length JSON and raw tensors, or an image",
            "content": {
                "application/json": {"schema": request},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        },
        "parameters": [
            {
                "name": "Inference-Header-Content-Length",
                "in": "header",
                "required": False,
                "schema": {"type": "integer", "minimum": 0},
                "description": "where the JSON ends and raw tensors begin; 0: the body is one image",
            }
        ],
    }
