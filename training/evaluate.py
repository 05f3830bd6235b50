"""Measure a model version on a labelled set under every view policy, through the service's own rooms.

decode (models.decode) -> views (models.views) -> engine (models.engines) -> errors; training/cost.py: cost
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.card import Metric, ModelCard, PolicyCard, PoolRule
from models.engines.base import Engine, EngineError, Placement
from models.ensemble import list_precisions, open_version
from models.repository import ModelRepository, ModelVersion, write_version
from models.views import list_policies
from models.views.merging import temper
from training.calibrate import RULES, calibration_error, error_of, merge_views
from training.cost import SAMPLE, Cost, measure_costs
from training.data.served import ServedImages
from training.errors import DataMissing
from training.viewing import POOLS, Record, make_context, record_policy

ADAPTIVE = "adaptive"
CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Measured:
    """One row of the table: the card's entry, and what it costs here. `chosen`: the rule the card serves.

    `predictions`: the first class of each image, int64 [N]. `ece`: expected calibration error on the same
    images, 0..1, under the card's temperature, None for rules it was not fitted for. `cost`: None where it
    was not measured.
    """

    metric: Metric
    mean_views: float
    chosen: bool
    predictions: NDArray[np.int64]
    ece: float | None = None
    cost: Cost | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """Images of a data set's split, and how the card names both."""

    dataset: str
    name: str
    images: ServedImages


@dataclass(frozen=True, slots=True)
class Splits:
    """What export and fit need: `training` for int8 ranges, `validation` to fit, `test` to measure.

    `test` is None where a data set has none; the validation split is measured in its place, and named so.
    """

    dataset: str
    training: ServedImages
    validation: ServedImages | None
    test: ServedImages | None
    trained_images: int


def measure_policies(
    card: ModelCard,
    engine: Engine,
    split: Split,
    policies: Sequence[str] = (),
) -> list[Measured]:
    """Error of every policy (or of `policies`) on `split`, under every merge and pool rule.

    Every image counts once.
    """
    rows: list[Measured] = []
    for tta in policies or list_policies():
        record = record_policy(tta, split.images, make_context(card, engine, tta), engine)
        rows.extend(_rows(record, split, tta, card.policy(tta)))
    return rows


def add_costs(card: ModelCard, engine: Engine, split: Split, rows: Sequence[Measured]) -> list[Measured]:
    """`rows` with what an image costs, measured on some images of `split`."""
    pools: dict[str, list[PoolRule]] = {}
    for row in rows:
        known = pools.setdefault(row.metric.tta, [])
        if row.metric.pool is not None and row.metric.pool not in known:
            known.append(row.metric.pool)
    contexts = {
        tta: [replace(make_context(card, engine, tta), pool=pool) for pool in known]
        for tta, known in pools.items()
    }
    costs = measure_costs(contexts, split.images.sample_files(SAMPLE), engine)
    places = {(tta, pool): at for tta, known in pools.items() for at, pool in enumerate(known)}
    return [
        replace(row, cost=costs[row.metric.tta][places[row.metric.tta, row.metric.pool]])
        for row in rows
        if row.metric.pool is not None
    ]


def evaluate_version(
    version: ModelVersion,
    repository: ModelRepository,
    split: Split,
    precision: str = "fp32",
    policies: Sequence[str] = (),
) -> list[Measured]:
    """Errors and costs, of all policies or of `policies`, with ONNX Runtime on one core.

    An ensemble's members are in `repository`. Raises EngineError if the version lacks that precision,
    BadVersion if a member is not there, DataMissing if the images have other labels.
    """
    if version.card.labels != split.images.labels:
        raise DataMissing(f"{version.reference} has other labels than the images of {split.dataset}")
    offered = list_precisions(version, repository, CPU)
    if precision not in offered:
        raise EngineError(f"{version.reference} has no {precision} graph, only {', '.join(offered)}")
    engine = open_version(version, repository, Placement(CPU, precision))
    rows = measure_policies(version.card, engine, split, policies)
    rows = add_costs(version.card, engine, split, rows)
    engine.close()
    stated: Literal["fp32", "int8"] = "int8" if precision == "int8" else "fp32"
    return [replace(row, metric=replace(row.metric, precision=stated)) for row in rows]


def record_metrics(version: ModelVersion, rows: Sequence[Measured], repository: Path) -> ModelVersion:
    """Write the next version, with the same files and these errors beside those its card has."""
    measured = tuple(row.metric for row in rows)

    def key(metric: Metric) -> tuple[object, ...]:
        return metric.dataset, metric.split, metric.tta, metric.precision, metric.merge, metric.pool

    kept = tuple(old for old in version.card.metrics if key(old) not in {key(new) for new in measured})
    card = replace(version.card, version=0, metrics=kept + measured)
    return write_version(
        repository, card, {name: (version.path / name).read_bytes() for name in version.card.files}
    )


def count_changed(ours: Measured, theirs: Measured) -> float:
    """Share of images with another first class, in percent."""
    return 100 * float((ours.predictions != theirs.predictions).mean())


def _rows(record: Record, split: Split, tta: str, chosen: PolicyCard) -> list[Measured]:
    """The row the service would serve, then the other rules where they give other scores."""
    targets = split.images.targets

    def row(probabilities: NDArray[np.float32], policy: PolicyCard, is_chosen: bool) -> Measured:
        metric = Metric(
            split.dataset,
            split.name,
            len(targets),
            tta,
            round(error_of(probabilities, targets), 3),
            round(error_of(probabilities, targets, 5), 3) if probabilities.shape[1] > 10 else None,
            merge=policy.merge,
            pool=policy.pool,
        )
        ece = round(calibration_error(probabilities, targets), 5) if is_chosen else None
        return Measured(metric, float(record.views.mean()), is_chosen, probabilities.argmax(axis=1), ece)

    rows = [row(record.probabilities, chosen, True)]
    if tta == ADAPTIVE or not record.logits or record.logits["window"].shape[1:3] == (1, 1):
        return rows
    is_pooled_alike = bool(np.array_equal(record.logits["window"], record.logits["global"]))
    for pool in POOLS[:1] if is_pooled_alike else POOLS:
        for rule in RULES:
            if (pool, rule) != (chosen.pool, chosen.merge):
                other = replace(chosen, pool=pool, merge=rule)
                merged = merge_views(record.logits[pool], rule, record.shares)
                rows.append(row(temper(merged, chosen.temperature), other, False))
    return rows
