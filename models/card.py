"""The model card: what a model version is, how its images are prepared and how well it does.

`card.json` beside the weights is the only description of a version that anything reads. Values are
parsed once, here; inside, the types are trusted.
"""

from dataclasses import dataclass, field
from typing import Literal

from pydantic import TypeAdapter, ValidationError

FORMAT = 1

Interpolation = Literal["bilinear", "bicubic"]
MergeRule = Literal["logits", "probabilities"]
PoolRule = Literal["window", "global"]
SecondLook = Literal["ten_crop", "mirror"]


class BadCard(ValueError):
    """card.json is not a model card; the message names the first field that is wrong."""


@dataclass(frozen=True, slots=True)
class Preprocess:
    """The deterministic rule from image to views; `mean` and `std` are in units of 1 (0..1), RGB.

    `resize_px` is the shorter side after resizing for the `center` policy, `crop_px` the side of the
    native crop. Normalisation happens inside the graph; it is stated here for the reader.
    """

    resize_px: int
    crop_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        """A crop cannot be cut from less than itself."""
        if not 0 < self.crop_px <= self.resize_px:
            raise ValueError(f"crop_px is {self.crop_px}, it must be from 1 to resize_px, {self.resize_px}")

    @property
    def ten_crop_px(self) -> int:
        """Shorter side for ten_crop and dense: 256 for a crop of 224, scaled (36 for 32). Section 3.4."""
        return 256 * self.crop_px // 224

    def scale_px(self, scale: int) -> int:
        """The paper's scale `scale` (of a 224 crop) at this network's crop: floor(scale * crop / 224)."""
        return scale * self.crop_px // 224


@dataclass(frozen=True, slots=True)
class PolicyCard:
    """What was fitted for one view policy on the validation split. ECE: expected calibration error, 0..1.

    `margin` and `second`: only for adaptive, the difference of the two best probabilities under which it
    looks again, and as which policy, ten_crop where none is named. `mean_views`: measured mean number of
    views an image cost.
    """

    merge: MergeRule = "probabilities"
    pool: PoolRule = "window"
    temperature: float = 1.0
    ece_before: float | None = None
    ece_after: float | None = None
    margin: float | None = None
    mean_views: float | None = None
    second: SecondLook | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured error: `top1_error` and `top5_error` in percent over `images` of `dataset`, `split`."""

    dataset: str
    split: str
    images: int
    tta: str
    top1_error: float
    top5_error: float | None = None
    precision: Literal["fp32", "int8", "bf16", "fp16"] = "fp32"
    merge: MergeRule | None = None
    pool: PoolRule | None = None
    changed_predictions: float | None = None  # percent that differ from fp32, for other precisions


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the weights come from: trained here, imported from a file, or an ensemble of versions."""

    kind: Literal["trained", "imported", "ensemble"]
    created: str  # RFC 3339, UTC
    recipe: str | None = None
    seed: int | None = None
    commit: str | None = None
    duration_s: float | None = None
    hardware: str | None = None
    images_seen: str | None = None  # such as "45,000 training images x 25 epochs"
    source: str | None = None  # file name of an imported checkpoint
    source_sha256: str | None = None
    licence: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class GoldenImage:
    """A stored view and the logits torch gave for it: the self-test of every engine at every load.

    `png` is base64 of a PNG holding the view's exact pixels, uint8 [H, W, 3]; `logits` float32 [K].
    """

    png: str
    logits: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an ensemble, pinned by the digest of its card; `weight` is relative."""

    name: str
    version: int
    digest: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Everything about a model version that is not a tensor. `files` maps file name to SHA-256 (hex)."""

    name: str
    version: int
    architecture: str
    labels: tuple[str, ...]
    preprocess: Preprocess
    window: int  # side of the last feature map at the native crop: 7, or 8 for CIFAR networks
    provenance: Provenance
    files: dict[str, str] = field(default_factory=dict)
    golden: tuple[GoldenImage, ...] = ()
    tolerance: dict[str, float] = field(default_factory=lambda: {"fp32": 1e-4})
    default_tta: str = "center"
    policies: dict[str, PolicyCard] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    members: tuple[Member, ...] = ()
    int8_allowed_loss: float | None = None
    format: int = FORMAT

    def policy(self, tta: str) -> PolicyCard:
        """What was fitted for `tta`; the defaults where nothing was."""
        return self.policies.get(tta, PolicyCard())


_ADAPTER: TypeAdapter[ModelCard] = TypeAdapter(ModelCard)


def parse_card(text: bytes) -> ModelCard:
    """Read card.json; raises BadCard naming the first wrong field."""
    try:
        card = _ADAPTER.validate_json(text)
    except ValidationError as err:
        first = err.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadCard(f"card.json: {where}: {first['msg']}") from err
    if card.format != FORMAT:
        raise BadCard(f"card.json: format is {card.format}, this version reads {FORMAT}")
    return card


def dump_card(card: ModelCard) -> bytes:
    """Write a card as indented UTF-8 JSON."""
    return _ADAPTER.dump_json(card, indent=1) + b"\n"
