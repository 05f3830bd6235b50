"""The nouns every protocol and every process of the service shares. Plain data, no behaviour.

The names of the fields are those of the public answers, on every protocol.
"""

from dataclasses import dataclass, field
from typing import Literal

Priority = Literal["interactive", "bulk"]
Precision = Literal["fp32", "int8"]
Merge = Literal["logits", "probabilities"]
Pool = Literal["window", "global"]


@dataclass(frozen=True, slots=True)
class ClassifyOptions:
    """What a caller may ask for besides the image; None means "what the model's card says".

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
