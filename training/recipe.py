"""A recipe: everything that decides a training run, read from TOML into one frozen value.

recipes/<family>/<name>.toml; `base = "family/name"` starts from another recipe, `--set section.key=value`
comes last. The resolved recipe is stored with every checkpoint, so a run can always say what it was.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from training.errors import BadRecipe

RECIPES = Path(__file__).parent / "recipes"
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class DataRecipe:
    """Which images. `validation`: how many training images are held out to choose by.

    `skip_broken`: go on without images that cannot be decoded, naming each once, instead of stopping.
    `native_px`: side of the view that is evaluated and served, if not that of the network's family (64 for
    Tiny ImageNet).
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    dataset: Literal["cifar10", "imagenet", "folder"]
    validation: int = 0
    mean: Literal["pixel", "channel"] = "channel"
    std: Literal["channel", "one"] = "channel"
    skip_broken: bool = False
    native_px: int | None = None


@dataclass(frozen=True, slots=True)
class AugmentRecipe:
    """What is done to a training image.

    `pad_px`: zero padding before the random crop (CIFAR). `shorter_side_px`: the range it is sampled from
    before a crop of `crop_px` (images in folders). `lighting`: deviation of the PCA colour shift, `mixup`:
    parameter of its beta distribution; 0 leaves either out.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    pad_px: int = 4
    flip: bool = True
    crop_px: int = 224
    shorter_side_px: tuple[int, int] = (256, 480)
    lighting: float = 0.0
    mixup: float = 0.0


@dataclass(frozen=True, slots=True)
class OptimizerRecipe:
    """SGD; `batch` images a step over all processes together.

    `class_weights`: balanced weighs a class's loss by the inverse of its share of the training images.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    batch: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"


@dataclass(frozen=True, slots=True)
class ScheduleRecipe:
    """The learning rate over the run, `iterations` steps or `epochs` passes long (exactly one of them).

    step: times `factor` at each of `milestones` (steps). plateau: times `factor` when the validation error
    has not improved for `patience` evaluations. cosine, linear: to zero at the end. A run begins with
    `warmup_iterations` of linear growth, or at `warmup_lr` until the training error falls below
    `warmup_until_error` percent (ResNet-110, section 4.2).
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    kind: Literal["step", "plateau", "cosine", "linear"] = "step"
    iterations: int | None = None
    epochs: float | None = None
    milestones: tuple[int, ...] = ()
    factor: float = 0.1
    patience: int = 5
    warmup_iterations: int = 0
    warmup_lr: float | None = None
    warmup_until_error: float | None = None


@dataclass(frozen=True, slots=True)
class RunRecipe:
    """How the run is carried out.

    `compile`: torch.compile the network. `cuda_graph`: replay a step's forward and backward pass as one CUDA
    graph (one GPU, small networks).
    `watch_test`: log the test images' error with every evaluation too, for figure 6; it decides nothing.
    `ema`: decay of the weight average that is evaluated instead. `early_stop`: end after that many
    evaluations without a better one.
    `workers`: processes that decode images in folders, for each training process.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    seed: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    cuda_graph: bool = False
    ema: float | None = None
    early_stop: int | None = None
    workers: int = 4
    evaluate_every_epochs: float = 1.0
    watch_test: bool = False
    checkpoint_every_steps: int = 500
    keep_checkpoints: int = 2


@dataclass(frozen=True, slots=True)
class Recipe:
    """One run, wholly described. `network` is a name from models.networks.

    `start`: the directory of a model version of that network whose body is trained further.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    name: str
    network: str
    data: DataRecipe
    schedule: ScheduleRecipe
    augment: AugmentRecipe = field(default_factory=AugmentRecipe)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    run: RunRecipe = field(default_factory=RunRecipe)
    start: str | None = None

    def steps(self, images: int) -> int:
        """Length of the run in steps, over a training split of `images`."""
        if self.schedule.iterations is not None:
            return self.schedule.iterations
        return int(-(-(self.schedule.epochs or 0) * images // self.optimizer.batch))


_ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Recipe)


def list_recipes() -> list[str]:
    """Names of the recipes that ship with the project, such as `cifar10/resnet20`."""
    paths = (path for path in RECIPES.rglob("*.toml") if not path.name.startswith("_"))
    return sorted(str(path.relative_to(RECIPES).with_suffix("")) for path in paths)


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a shipped recipe by name, or any TOML file by path; `overrides` are `section.key=value`.

    Raises BadRecipe naming what is wrong.
    """
    table = _read_table(name)
    table.setdefault("name", Path(name).stem if name.endswith(".toml") else name)
    for override in overrides:
        _apply(table, override)
    return _check(table)


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as JSON; `parse_recipe` reads it back."""
    return _ADAPTER.dump_json(recipe).decode()


def parse_recipe(text: str) -> Recipe:
    """Read what `dump_recipe` wrote; raises BadRecipe."""
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as err:
        raise BadRecipe(_first_error(err)) from err


def _read_table(name: str) -> dict[str, Any]:
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError as err:
        raise BadRecipe(f"no recipe {name!r}; there are: {', '.join(list_recipes())}") from err
    except tomllib.TOMLDecodeError as err:
        raise BadRecipe(f"{path}: {err}") from err
    base = table.pop("base", None)
    return table if base is None else _merge(_read_table(str(base)), table)


def _merge(base: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`change` over `base`, section by section."""
    merged = dict(base)
    for key, value in change.items():
        merged[key] = _merge(merged.get(key, {}), value) if isinstance(value, dict) else value
    return merged


def _apply(table: dict[str, Any], override: str) -> None:
    """Set one `section.key=value`; the value is TOML, or a bare word taken as a string."""
    key, equals, text = override.partition("=")
    if not equals:
        raise BadRecipe(f"--set {override!r} is not section.key=value")
    *sections, last = key.strip().split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise BadRecipe(f"--set {override!r}: {section} is not a section")
    try:
        table[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        table[last] = text.strip()


def _check(table: dict[str, Any]) -> Recipe:
    try:
        recipe = _ADAPTER.validate_python(table)
    except ValidationError as err:
        raise BadRecipe(_first_error(err)) from err
    if (recipe.schedule.iterations is None) == (recipe.schedule.epochs is None):
        raise BadRecipe("schedule: give exactly one of iterations and epochs")
    low, high = recipe.augment.shorter_side_px
    if not recipe.augment.crop_px <= low <= high:
        raise BadRecipe(f"augment: need crop_px {recipe.augment.crop_px} <= shorter_side_px {low} <= {high}")
    return recipe


def _first_error(err: ValidationError) -> str:
    first = err.errors()[0]
    return f"recipe: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
