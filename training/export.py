"""`python -m training export`: the best checkpoint of a run -> a model version with a complete card.

checkpoint -> float32 version -> int8 beside it -> fitted on the validation split -> measured on the test
set -> written once into the repository (versions never change)
"""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from models.card import ModelCard, Preprocess, Provenance
from models.checkpoints.export import export_version
from models.checkpoints.graph import CannotExport
from models.checkpoints.int8 import quantize_version
from models.networks import find_architecture
from models.networks.architecture import Network
from models.preprocess import cut_views, plan_center
from models.repository import ModelRepository, ModelVersion, read_version, write_version
from training.data.served import Pixels
from training.evaluate import Measured, Splits
from training.journal import read_journal
from training.recipe import Recipe, parse_recipe
from training.refit import measure_version
from training.state import TrainState, load_state
from training.task import preprocess_of

CALIBRATION_VIEWS = 300  # training images that int8 ranges are measured on
GOLDEN_VIEWS = 3  # of the validation split, beside the synthetic ones


@dataclass(frozen=True, slots=True)
class Exported:
    """The version written, and the rows measured for it."""

    version: ModelVersion
    rows: tuple[Measured, ...]


def export_run(
    run: Path, name: str, repository: Path, splits: Splits, say: Callable[[str], None]
) -> Exported:
    """Write the best checkpoint of the run directory `run` as the next version of `name`.

    Raises BadCheckpoint, CannotExport, BadVersion, OSError.
    """
    state = load_state(run / "best.pt")
    recipe = parse_recipe(state.recipe)
    card = describe_run(run, name, state, recipe, splits)
    with tempfile.TemporaryDirectory() as scratch:
        version = quantise(restore_network(state, recipe), card, splits, Path(scratch))
        say(f"exported {recipe.network}, fp32 and int8")
        card, rows = measure_version(version, ModelRepository([Path(scratch)]), splits, say)
        files = {file: (version.path / file).read_bytes() for file in version.card.files}
        return Exported(write_version(repository, card, files), rows)


def describe_run(run: Path, name: str, state: TrainState, recipe: Recipe, splits: Splits) -> ModelCard:
    """The card of a trained network before anything is measured; raises CannotExport for a mean per pixel."""
    architecture = find_architecture(recipe.network)
    if state.mean.shape[1:] != (1, 1):
        raise CannotExport(
            "this run subtracts a mean per pixel, which has one size, while an exported graph takes views "
            "of any size. Train with --set data.mean=channel"
        )
    preprocess = replace(
        preprocess_of(recipe), mean=_channels(state.mean.tolist()), std=_channels(state.std.tolist())
    )
    return ModelCard(
        name=name,
        version=0,
        architecture=architecture.name,
        labels=tuple(state.labels),
        preprocess=preprocess,
        window=architecture.window * preprocess.crop_px // architecture.crop_px,
        provenance=describe_provenance(run, state, recipe, splits),
    )


def describe_provenance(run: Path, state: TrainState, recipe: Recipe, splits: Splits) -> Provenance:
    """Where the weights come from, out of the run's journal."""
    lines = read_journal(run / "metrics.jsonl")
    start = next((line for line in lines if line.get("event") == "start"), {})
    end = max((float(line.get("elapsed_s") or 0) for line in lines), default=0.0)
    epochs = recipe.steps(splits.trained_images) * recipe.optimizer.batch / splits.trained_images
    numerics = f"{recipe.run.precision}, torch {start.get('torch')}"
    if recipe.start is not None:
        numerics += f"; begun from {read_version(Path(recipe.start)).reference}"
    chosen = f", {len(splits.validation.targets):,} others chose" if splits.validation else ""
    return Provenance(
        kind="trained",
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        recipe=recipe.name,
        seed=recipe.run.seed,
        commit=_text(start.get("commit")),
        duration_s=round(end, 1),
        hardware=_text(start.get("hardware")),
        images_seen=f"{splits.trained_images:,} training images x {epochs:.1f} epochs{chosen}",
        licence="Apache-2.0",
        note=f"{numerics}; the weights of step {state.step}, which had the least validation error",
    )


def restore_network(state: TrainState, recipe: Recipe) -> Network:
    """The network with the weights that were evaluated."""
    network = find_architecture(recipe.network).build(len(state.labels))
    network.load_state_dict(state.evaluated)
    return network.float().eval()


def quantise(network: Network, card: ModelCard, splits: Splits, scratch: Path) -> ModelVersion:
    """fp32 and int8 graphs of `network` in the scratch repository."""
    chosen = splits.validation or splits.training
    golden = list(center_views(chosen.sample(GOLDEN_VIEWS), card.preprocess))
    plain = export_version(network, card, scratch, golden)
    ranges = list(center_views(splits.training.sample(CALIBRATION_VIEWS), card.preprocess))
    return quantize_version(plain, ranges, scratch)


def center_views(images: Iterable[Pixels], preprocess: Preprocess) -> Iterable[Pixels]:
    """The one view that `center` looks at, of each image."""
    for image in images:
        plan = plan_center(image.shape[0], image.shape[1], preprocess)
        yield cut_views(image, plan, preprocess.interpolation)[0]


def _channels(values: list[list[list[float]]]) -> tuple[float, float, float]:
    red, green, blue = (channel[0][0] for channel in values)
    return red, green, blue


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
