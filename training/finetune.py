"""`python -m training finetune`: a folder of pictures for each class -> a model version of one's own.

The recipe is recipes/finetune/photos.toml; what follows from the pictures and from the start is set here.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from models.repository import NAME, ModelVersion
from training.distributed import Ranks
from training.errors import BadRecipe
from training.export import Exported, export_run
from training.loop import Observer
from training.recipe import Recipe, load_recipe
from training.splits import open_splits
from training.task import list_files
from training.train import train

RECIPE = "finetune/photos"
MIN_STEPS_AN_EPOCH = 4  # so that a few dozen pictures still make some steps
LARGEST_SCALE = 11 / 8  # of the native view's side, before a random crop: 44 for 32, 308 for 224


@dataclass(frozen=True, slots=True)
class Finetune:
    """Pictures in `data`, begun from `start`, run in `directory`, written as `name` into `repository`."""

    data: Path
    start: ModelVersion
    name: str
    directory: Path
    repository: Path
    overrides: tuple[str, ...] = ()


def finetune(asked: Finetune, ranks: Ranks, observer: Observer) -> Exported:
    """Train, fit, measure on pictures held out, and write the version; raises TrainingError, BadVersion.

    A run that was stopped goes on; one that became a version is put aside, so that the next begins anew.
    """
    recipe = make_recipe(asked)
    train(recipe, asked.data, asked.directory, ranks, observer)
    splits = open_splits(recipe, asked.data, observer.say)
    exported = export_run(asked.directory, asked.name, asked.repository, splits, observer.say)
    done = asked.directory.with_name(f"{asked.directory.name}-{exported.version.card.version}")
    shutil.rmtree(done, ignore_errors=True)  # of a repository that was emptied since
    asked.directory.rename(done)
    return exported


def make_recipe(asked: Finetune) -> Recipe:
    """The recipe with what follows from the model begun with and from the number of pictures."""
    card = asked.start.card
    if card.members:
        raise BadRecipe(f"{asked.start.reference} is an ensemble; finetune one of its members")
    crop = card.preprocess.crop_px
    sizes = (f"data.native_px={crop}", f"augment.crop_px={crop}")
    scales = f"augment.shorter_side_px=[{crop}, {int(crop * LARGEST_SCALE)}]"
    fixed = (f"network={card.architecture}", f"start={asked.start.path.resolve()}", *sizes, scales)
    recipe = load_recipe(RECIPE, [*fixed, *asked.overrides])
    images = len(list_files(recipe, asked.data).training)
    largest = max(2, images // MIN_STEPS_AN_EPOCH)
    if recipe.optimizer.batch <= largest:
        return recipe
    return load_recipe(RECIPE, [*fixed, f"optimizer.batch={largest}", *asked.overrides])


def name_after(folder: Path) -> str:
    """A model name from a folder's: lower case, other characters become `-`."""
    name = re.sub(r"[^a-z0-9._-]+", "-", folder.resolve().name.lower()).strip("-._")[:64]
    return name if NAME.fullmatch(name) else "photos"
