"""The nouns every protocol and every process of the service shares. Plain data, no behaviour.

The names of the fields are those of the public answers, on every protocol.
"""

import re
from dataclasses import dataclass, field
from typing import Literal

from models.card import ModelCard

# What a caller may call a request; the server makes a name of its own for any other.
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)

Priority = Literal["interactive", "bulk"]
Precision = Literal["fp32", "int8"]
Merge = Literal["logits", "probabilities"]
Pool = Literal["window", "global"]


@dataclass(frozen=True, slots=True)
class ClassifyOptions:
    """What a caller may ask for besides the image; None means "what the model's card says".

    `top_k`: the default gives all classes of a model that has fewer; any other number it must have.
    `model`: name, name@version, or "" for the default model. `scales`: the paper's scales (of a 224 crop)
    for multi_scale. `map_class`: class index for the activation map, None for the top class.
    """

    model: str = ""
    top_k: int = 5
    tta: str | None = None
    scales: tuple[int, ...] | None = None
    merge: Merge | None = None
    pool: Pool | None = None
    wants_map: bool = False
    map_class: int | None = None
    wants_logits: bool = False
    precision: Precision | None = None
    priority: Priority = "interactive"


@dataclass(frozen=True, slots=True)
class ClassifyRequest:
    """One encoded image and what is asked about it.

    `deadline`: time.monotonic() seconds (one clock for all processes of a machine) after which nobody waits
    for the answer. `caller`: the key whose fair share this is, "" when keys are off. `protocol`: for metrics.
    """

    image: bytes
    request_id: str
    deadline: float
    options: ClassifyOptions = field(default_factory=ClassifyOptions)
    caller: str = ""
    protocol: str = "http"


@dataclass(frozen=True, slots=True)
class Prediction:
    """One ranked class; `probability` is 0..1 after temperature."""

    index: int
    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Which weights answered: `digest` is the SHA-256 of the version's card, hex."""

    name: str
    version: int
    digest: str


@dataclass(frozen=True, slots=True)
class TtaUse:
    """The view policy asked for, the one used (a cheaper one under overload, if allowed), and its views."""

    asked: str
    used: str
    views: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds: decoding and cutting views, waiting, computing, and from arrival to answer."""

    decode: float
    queue: float
    infer: float
    total: float


@dataclass(frozen=True, slots=True)
class Box:
    """Pixels of the image the caller sent: left and top inside, right and bottom outside."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True, slots=True)
class ActivationMap:
    """Where the evidence for `class_index` is.

    `png`: the overlay, the size of the image sent or scaled down; `array`: rows of 0..1 on a coarse grid over
    the image sent; `box` around the hot region.
    """

    png: bytes
    array: tuple[tuple[float, ...], ...]
    class_index: int
    box: Box


@dataclass(frozen=True, slots=True)
class Classification:
    """The answer for one image."""

    request_id: str
    model: ModelRef
    predictions: tuple[Prediction, ...]
    tta: TtaUse
    timings_ms: Timings
    logits: tuple[float, ...] | None = None
    map: ActivationMap | None = None


@dataclass(frozen=True, slots=True)
class RefusedVersion:
    """A version in the repository that failed its checks, and why."""

    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """One name and version a caller can ask for; `state` "refused" has no card, an older one may serve on.

    `is_default`: it answers when a request names no model. `is_default_version`: it answers to its bare name.
    `workers`: how many are up for it now. `cost_ms`: what an image costs by view policy. `refused`: versions
    of the same name that failed their checks.
    """

    name: str
    version: int
    digest: str
    state: Literal["ready", "loading", "refused"]
    is_default: bool
    is_default_version: bool
    workers: int
    precisions: tuple[Precision, ...]
    card: ModelCard | None
    cost_ms: dict[str, float] = field(default_factory=dict)
    refused: tuple[RefusedVersion, ...] = ()


@dataclass(frozen=True, slots=True)
class ChildStatus:
    """One child process; `last_words` is what a dead one said last."""

    role: str
    slot: int
    pid: int
    state: str
    restarts: int
    model: str
    device: str
    last_words: str


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker as this frontend sees it: predicted wait, images it owes an answer for, rate."""

    worker: int
    model: str
    version: int
    device: str
    is_retiring: bool
    wait_ms: float
    unanswered: int
    drain_per_s: float
    cost_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """What /v1/status tells."""

    is_ready: bool
    is_draining: bool
    inflight_bytes: int
    max_inflight_bytes: int
    children: tuple[ChildStatus, ...]
    workers: tuple[WorkerStatus, ...]
