"""What all processes counted of one model so far, for protocols that tell it in their own words."""

from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample

Stage = tuple[int, float]  # how often, seconds altogether


@dataclass(frozen=True, slots=True)
class ModelTotals:
    """Images by stage since the service started; `last_answer_s` is seconds since 1970, 0 for never.

    `sizes`: batches by how many views they had.
    """

    total: Stage
    failed: Stage
    decode: Stage
    queue: Stage
    inference: Stage
    batches: int
    sizes: dict[int, Stage]
    last_answer_s: float


def sum_totals(registry: CollectorRegistry, model: str) -> ModelTotals:
    """Read `registry` once for the served name `model`."""
    samples = [
        sample
        for family in registry.collect()
        for sample in family.samples
        if sample.labels.get("model") == model
    ]
    failed = sum(
        sample.value
        for sample in samples
        if sample.name == "resnet_images_total" and sample.labels["outcome"] != "ok"
    )
    return ModelTotals(
        total=_sum_stage(samples, "total"),
        failed=(int(failed), _sum(samples, "resnet_failed_seconds_total")),
        decode=_sum_stage(samples, "decode"),
        queue=_sum_stage(samples, "queue"),
        inference=_sum_stage(samples, "inference"),
        batches=int(_sum(samples, "resnet_batch_seconds_count")),
        sizes=_sum_sizes(samples),
        last_answer_s=_sum(samples, "resnet_last_answer_timestamp_seconds"),
    )


def _sum_stage(samples: Iterable[Sample], stage: str) -> Stage:
    prefix = f"resnet_{stage}_seconds"
    return int(_sum(samples, f"{prefix}_count")), _sum(samples, f"{prefix}_sum")


def _sum_sizes(samples: Iterable[Sample]) -> dict[int, Stage]:
    sizes: dict[int, Stage] = {}
    for name, place in (("resnet_batches_total", 0), ("resnet_batches_seconds_total", 1)):
        for sample in samples:
            if sample.name == name:
                views = int(sample.labels["views"])
                count, seconds = sizes.get(views, (0, 0.0))
                sizes[views] = (count, sample.value) if place else (int(sample.value), seconds)
    return dict(sorted(sizes.items()))


def _sum(samples: Iterable[Sample], name: str) -> float:
    return sum(sample.value for sample in samples if sample.name == name)
