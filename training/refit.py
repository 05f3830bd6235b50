"""What a card says of its view policies, fitted and measured anew (`python -m training fit`); weights stay.

The split that is fitted on must be one that no weight has seen: it is found from where the weights come from.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from models.card import Metric, ModelCard
from models.engines.base import Placement
from models.ensemble import list_precisions, open_version
from models.repository import ModelRepository, ModelVersion, check_members, write_version
from training.errors import DataMissing
from training.evaluate import CPU, Measured, Split, Splits, count_changed, measure_policies
from training.fit import fit_policies
from training.recipe import Recipe, load_recipe

INT8 = "int8"
INT8_POLICIES = ("center", "ten_crop")


def refit_version(
    version: ModelVersion,
    repository: ModelRepository,
    splits: Splits,
    to: Path,
    say: Callable[[str], None],
) -> tuple[ModelVersion, tuple[Measured, ...]]:
    """Write the next version into `to`, with the same files; raises BadVersion, EngineError, DataMissing."""
    _check_unseen(version, repository, splits)
    card, rows = measure_version(version, repository, splits, say)
    files = {file: (version.path / file).read_bytes() for file in version.card.files}
    return write_version(to, card, files), rows


def find_recipe(version: ModelVersion, repository: ModelRepository) -> Recipe:
    """The recipe whose validation split `version` has not seen; raises DataMissing, BadRecipe.

    An ensemble's members must all have been trained on the same split.
    """
    recipes = [_read_recipe(member) for member in _list_networks(version, repository)]
    splits = {(recipe.data, recipe.run.seed) for recipe in recipes}
    if len(splits) > 1:
        raise DataMissing(f"the members of {version.reference} held out different images: none is new to all")
    return recipes[0]


def measure_version(
    version: ModelVersion, repository: ModelRepository, splits: Splits, say: Callable[[str], None]
) -> tuple[ModelCard, tuple[Measured, ...]]:
    """`version`'s card with fitted policies and measured errors, numbered anew when it is written."""
    card = replace(version.card, version=0)
    engine = open_version(version, repository, Placement())
    if splits.validation is not None:
        card = replace(card, policies=fit_policies(card, engine, splits.validation))
        say(f"fitted {len(card.policies)} view policies on {len(splits.validation.targets):,} images")
    measured = _measured_split(splits)
    if measured is None:
        return card, ()
    rows = tuple(measure_policies(card, engine, measured))
    engine.close()
    int8 = _measure_int8(card, version, repository, rows, measured)
    say(f"measured {len(rows)} rows on {len(measured.images.targets):,} images")
    return replace(card, metrics=(*(row.metric for row in rows), *int8)), rows


def _list_networks(version: ModelVersion, repository: ModelRepository) -> Sequence[ModelVersion]:
    return check_members(version, repository) if version.card.members else [version]


def _read_recipe(version: ModelVersion) -> Recipe:
    origin = version.card.provenance
    if origin.kind != "trained" or origin.recipe is None or origin.seed is None:
        raise DataMissing(
            f"{version.reference} was not trained here ({origin.kind}): which images its weights have seen "
            "is not known, so that nothing can be fitted"
        )
    return load_recipe(origin.recipe, [f"run.seed={origin.seed}"])


def _check_unseen(version: ModelVersion, repository: ModelRepository, splits: Splits) -> None:
    """The recipe holds out what it held out when each network was trained."""
    held_out = 0 if splits.validation is None else len(splits.validation.targets)
    for member in _list_networks(version, repository):
        seen = member.card.provenance.images_seen or ""
        if not (seen.startswith(f"{splits.trained_images:,} ") and f" {held_out:,} others chose" in seen):
            raise DataMissing(
                f"{member.reference} was trained on {seen or 'unknown images'}, the data here hold out "
                f"{held_out:,} of {splits.trained_images + held_out:,}: not the same split"
            )


def _measured_split(splits: Splits) -> Split | None:
    if splits.test is not None:
        return Split(splits.dataset, "test", splits.test)
    if splits.validation is not None:
        return Split(splits.dataset, "validation", splits.validation)
    return None


def _measure_int8(
    card: ModelCard,
    version: ModelVersion,
    repository: ModelRepository,
    fp32: Sequence[Measured],
    split: Split,
) -> list[Metric]:
    """Errors at int8 and the share of first classes that differ from fp32, where there is such a graph."""
    if INT8 not in list_precisions(version, repository, CPU):
        return []
    engine = open_version(version, repository, Placement(precision=INT8))
    rows = [row for row in measure_policies(card, engine, split, INT8_POLICIES) if row.chosen]
    engine.close()
    exact = {row.metric.tta: row for row in fp32 if row.chosen}
    return [
        replace(
            row.metric,
            precision="int8",
            changed_predictions=round(count_changed(row, exact[row.metric.tta]), 3),
        )
        for row in rows
    ]
