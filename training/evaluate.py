"""Measure a model version on a labelled set under every view policy, through the service's own rooms.

decode (models.decode) -> views (models.views) -> engine (models.engines) -> errors, cost, what is fitted
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.card import Metric, ModelCard, PolicyCard
from models.engines.base import Engine
from models.engines.onnx import OnnxEngine
from models.repository import ModelVersion, write_version
from models.views import list_policies
from training.calibrate import (
    RULES,
    calibration_error,
    choose_look,
    error_of,
    fit_margin,
    fit_policy,
    merge_views,
)
from training.data.served import ServedImages
from training.errors import DataMissing
from training.viewing import POOLS, Record, make_context, record_policy

ADAPTIVE, FIRST, SECOND = "adaptive", "center", "ten_crop"


@dataclass(frozen=True, slots=True)
class Measured:
    """One row of the table: the card's entry, and what it cost here. `chosen`: the rule the card serves.

    `predictions`: the first class of each image, int64 [N].
    """

    metric: Metric
    mean_views: float
    images_per_s: float
    chosen: bool
    predictions: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Split:
    """Images of a data set's split, and how the card names both."""

    dataset: str
    name: str
    images: ServedImages


def fit_policies(card: ModelCard, engine: Engine, images: ServedImages) -> dict[str, PolicyCard]:
    """Fit every view policy on `images`, the validation split; raises what record_policy does."""
    fitted: dict[str, PolicyCard] = {}
    records: dict[str, Record] = {}
    for tta in list_policies():
        if tta != ADAPTIVE:
            records[tta] = record_policy(tta, images, make_context(card, engine, tta), engine)
            fitted[tta] = fit_policy(records[tta], images.targets)
    if {FIRST, SECOND} <= set(fitted) and ADAPTIVE in list_policies():
        fitted[ADAPTIVE] = _fit_adaptive(records[FIRST], records[SECOND], images.targets, fitted[SECOND])
    return fitted


def measure_policies(
    card: ModelCard,
    engine: Engine,
    split: Split,
    policies: Sequence[str] = (),
) -> list[Measured]:
    """Error and cost of every policy (or of `policies`) on `split`, under every merge and pool rule.

    Every image counts once.
    """
    rows: list[Measured] = []
    for tta in policies or list_policies():
        record = record_policy(tta, split.images, make_context(card, engine, tta), engine)
        rows.extend(_rows(record, split, tta, card.policy(tta)))
    return rows


def evaluate_version(
    version: ModelVersion, split: Split, precision: str = "fp32", policies: Sequence[str] = ()
) -> list[Measured]:
    """`measure_policies` with ONNX Runtime; raises EngineError if the version lacks that precision."""
    if version.card.labels != split.images.labels:
        raise DataMissing(f"{version.reference} has other labels than the images of {split.dataset}")
    engine = OnnxEngine(version, precision)
    rows = measure_policies(version.card, engine, split, policies)
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


def _fit_adaptive(
    center: Record, ten_crop: Record, targets: NDArray[np.int64], fitted: PolicyCard
) -> PolicyCard:
    """ten_crop's merge rule and temperature, which both looks are read under; then the margin."""
    looks = int(ten_crop.views[0])

    def answers(temperature: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        first, second = (
            merge_views(record.logits["window"], fitted.merge, temperature) for record in (center, ten_crop)
        )
        return first, second

    margin = fit_margin(*answers(fitted.temperature), targets, looks)
    first, second = answers(fitted.temperature)
    before, _ = choose_look(*answers(1.0), margin)
    after, is_again = choose_look(first, second, margin)
    return replace(
        fitted,
        pool="window",
        margin=margin,
        ece_before=round(calibration_error(before, targets), 5),
        ece_after=round(calibration_error(after, targets), 5),
        mean_views=round(1 + looks * float(is_again.mean()), 3),
    )


def _rows(record: Record, split: Split, tta: str, chosen: PolicyCard) -> list[Measured]:
    """The row the service would serve, then the other rules where they give other scores."""
    targets = split.images.targets
    rate = len(targets) / record.seconds
    views = float(record.views.mean())

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
        return Measured(metric, views, rate, is_chosen, probabilities.argmax(axis=1))

    rows = [row(record.probabilities, chosen, True)]
    if tta == ADAPTIVE or not record.logits or record.views[0] == 1:
        return rows
    is_pooled_alike = bool(np.array_equal(record.logits["window"], record.logits["global"]))
    for pool in POOLS[:1] if is_pooled_alike else POOLS:
        for rule in RULES:
            if (pool, rule) != (chosen.pool, chosen.merge):
                other = replace(chosen, pool=pool, merge=rule)
                rows.append(row(merge_views(record.logits[pool], rule), other, False))
    return rows


def format_table(rows: Sequence[Measured]) -> str:
    """A Markdown table; * marks the rule that is served."""
    lines = [
        "| tta | merge | pool | views | top-1 error % | top-5 error % | images/s |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        metric = row.metric
        top5 = "" if metric.top5_error is None else f"{metric.top5_error:.2f}"
        mark = " *" if row.chosen else ""
        lines.append(
            f"| {metric.tta}{mark} | {metric.merge} | {metric.pool} | {row.mean_views:.2f} "
            f"| {metric.top1_error:.2f} | {top5} | {row.images_per_s:.0f} |"
        )
    return "\n".join(lines) + "\n"
