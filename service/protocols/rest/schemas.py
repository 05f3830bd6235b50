"""The shapes of the public answers for the OpenAPI document; tests hold the real answers to them."""

from typing import Literal

from pydantic import BaseModel, Field


class Problem(BaseModel):
    """RFC 9457 problem document; `type` is a stable slug."""

    type: str = Field(examples=["broken-image"])
    title: str
    status: int
    detail: str
    request_id: str
    field: str | None = Field(None, description="the parameter or header that is wrong")


class ModelRefBody(BaseModel):
    """Which weights answered."""

    name: str
    version: int
    digest: str = Field(description="SHA-256 of the version's card")


class PredictionBody(BaseModel):
    """One ranked class."""

    index: int
    label: str
    probability: float


class TtaBody(BaseModel):
    """The view policy asked for, the one used, and how many views were looked at."""

    asked: str
    used: str
    views: int


class TimingsBody(BaseModel):
    """Milliseconds."""

    decode: float
    queue: float
    infer: float
    total: float


class BoxBody(BaseModel):
    """Pixels of the image sent; left and top inside, right and bottom outside."""

    left: int
    top: int
    right: int
    bottom: int


class MapBody(BaseModel):
    """The activation map."""

    png: str = Field(description="overlay on the image, PNG in base64")
    array: list[list[float]] = Field(description="rows of 0..1 on a coarse grid over the image")
    class_: int = Field(alias="class")
    box: BoxBody


class ClassificationBody(BaseModel):
    """The answer for one image."""

    request_id: str
    model: ModelRefBody
    predictions: list[PredictionBody]
    tta: TtaBody
    timings_ms: TimingsBody
    logits: list[float] | None = Field(None, description="only with logits=true")
    map: MapBody | None = Field(None, description="only with map=true")


class InputBody(BaseModel):
    """How images are prepared."""

    resize_px: int
    crop_px: int
    interpolation: str


class PolicyBody(BaseModel):
    """What was fitted for one view policy."""

    merge: str
    pool: str
    temperature: float
    ece_before: float | None
    ece_after: float | None
    margin: float | None
    mean_views: float | None
    second: str | None


class ModelTtaBody(BaseModel):
    """View policies: the default, what was fitted, and milliseconds an image costs with each here."""

    default: str
    policies: dict[str, PolicyBody]
    cost_ms: dict[str, float]


class MetricBody(BaseModel):
    """One measured error, in percent."""

    dataset: str
    split: str
    images: int
    tta: str
    top1_error: float
    top5_error: float | None
    precision: str
    merge: str | None
    pool: str | None
    changed_predictions: float | None


class ProvenanceBody(BaseModel):
    """Where the weights come from."""

    kind: str
    created: str
    recipe: str | None
    seed: int | None
    commit: str | None
    duration_s: float | None
    hardware: str | None
    images_seen: str | None
    source: str | None
    source_sha256: str | None
    licence: str | None
    note: str | None


class RefusedVersionBody(BaseModel):
    """A version that failed its checks, and why."""

    version: int
    reason: str


class ModelBody(BaseModel):
    """One model version."""

    name: str
    version: int
    digest: str
    state: Literal["ready", "loading", "refused"]
    ready: bool = Field(description="a worker of it is up; what clients of KServe v1 look for")
    default: bool = Field(description="answers when a request names no model")
    default_version: bool = Field(description="answers to its bare name")
    workers: int
    precisions: list[str]
    architecture: str | None
    labels: list[str]
    input: InputBody | None
    tta: ModelTtaBody | None
    metrics: list[MetricBody]
    provenance: ProvenanceBody | None
    refused: list[RefusedVersionBody]


class ModelsBody(BaseModel):
    """Every model version."""

    models: list[ModelBody]


class ChildBody(BaseModel):
    """One child process."""

    role: str
    slot: int
    pid: int
    state: str
    restarts: int
    model: str
    device: str
    last_words: str


class WorkerBody(BaseModel):
    """One worker as this frontend sees it."""

    worker: int
    model: str
    version: int
    device: str
    is_retiring: bool
    wait_ms: float
    unanswered: int
    drain_per_s: float
    cost_ms: dict[str, float]


class StatusBody(BaseModel):
    """The state of the service."""

    version: str
    ready: bool
    draining: bool
    inflight_bytes: int
    max_inflight_bytes: int
    children: list[ChildBody]
    workers: list[WorkerBody]


class HealthBody(BaseModel):
    """Alive or ready."""

    status: str
