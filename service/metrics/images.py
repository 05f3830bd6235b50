"""Images as the Classifier sees them: how each ended, how long its stages took, what was answered."""

from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Iterable, Sequence

from prometheus_client import Counter, Gauge, Histogram

from service.metrics.buckets import PROBABILITY, SECONDS
from service.types import Classification, TtaUse


class _ModelImages:
    """The children of one model, looked up once."""

    def __init__(self, families: "ImageMetrics", model: str) -> None:
        self.answered = families.images.labels(model, "ok")
        self.decode = families.decode.labels(model)
        self.queue = families.queue.labels(model)
        self.inference = families.inference.labels(model)
        self.total = families.total.labels(model)
        self.probability = families.probability.labels(model)
        self.last = families.last.labels(model)
        self.views: dict[str, Counter] = {}
        self.classes: dict[str, Counter] = {}


class ImageMetrics:
    """`model` is a served name or "other", `outcome` "ok" or an error's slug, `tta` a policy's name."""

    def __init__(self) -> None:
        self.images = Counter(
            "resnet_images", "Images by how they ended.", ["model", "outcome"], registry=None
        )
        self.decode = self._seconds("decode", "Decoding an image and cutting its views.")
        self.queue = self._seconds("queue", "Waiting in the worker's queue.")
        self.inference = self._seconds("inference", "Computing the image's views, batched with others.")
        self.total = self._seconds("total", "From the arrival of the whole image to its answer.")
        self.views = Counter("resnet_views", "Views looked at.", ["model", "tta"], registry=None)
        self.classes = Counter(
            "resnet_top_predictions",
            "Answers by their most probable class.",
            ["model", "label"],
            registry=None,
        )
        self.probability = Histogram(
            "resnet_top_probability_ratio",
            "Probability of the most probable class.",
            ["model"],
            buckets=PROBABILITY,
            registry=None,
        )
        self.last = Gauge(
            "resnet_last_answer_timestamp_seconds",
            "When the most recent image was answered, seconds since 1970.",
            ["model"],
            multiprocess_mode="max",
            registry=None,
        )
        self.failed = Counter(
            "resnet_failed_seconds",
            "From the arrival of images to the errors they ended with.",
            ["model"],
            registry=None,
        )
        self._models: dict[str, _ModelImages] = {}
        self._failures: dict[tuple[str, str], tuple[Counter, Counter]] = {}

    def expect(self, model: str) -> None:
        """That model is served: its images are there at 0, so that shares of them can be told."""
        if model not in self._models:
            self._models[model] = _ModelImages(self, model)

    def count_answer(self, answer: Classification) -> None:
        """One image was answered."""
        model, tta, timings_ms = answer.model.name, answer.tta.used, answer.timings_ms
        children = self._models.get(model)
        if children is None:
            children = self._models[model] = _ModelImages(self, model)
        children.answered.inc()
        children.last.set_to_current_time()
        _observe_one(children.decode, timings_ms.decode / 1000)
        _observe_one(children.queue, timings_ms.queue / 1000)
        _observe_one(children.inference, timings_ms.infer / 1000)
        _observe_one(children.total, timings_ms.total / 1000)
        self._find_views(children, model, tta).inc(answer.tta.views)
        if answer.predictions:
            top = answer.predictions[0]
            self._find_class(children, model, top.label).inc()
            _observe_one(children.probability, top.probability)

    def count_answers(self, answers: Sequence[Classification]) -> None:
        """Images were answered together; a write is a call into mmap, so equal ones are one."""
        by_model: dict[str, list[Classification]] = {}
        for answer in answers:
            by_model.setdefault(answer.model.name, []).append(answer)
        for model, some in by_model.items():
            self._count_answers(model, some)

    def count_failure(self, model: str, slug: str, took_s: float) -> None:
        """One image ended with that error after `took_s` seconds."""
        ended = self._failures.get((model, slug))
        if ended is None:
            ended = self.images.labels(model, slug), self.failed.labels(model)
            self._failures[(model, slug)] = ended
        ended[0].inc()
        ended[1].inc(took_s)

    def _count_answers(self, model: str, answers: Sequence[Classification]) -> None:
        self.expect(model)
        children = self._models[model]
        children.answered.inc(len(answers))
        children.last.set_to_current_time()
        times = [answer.timings_ms for answer in answers]
        _observe(children.decode, [one.decode / 1000 for one in times])
        _observe(children.queue, [one.queue / 1000 for one in times])
        _observe(children.inference, [one.infer / 1000 for one in times])
        _observe(children.total, [one.total / 1000 for one in times])
        best = [answer.predictions[0] for answer in answers if answer.predictions]
        _observe(children.probability, [one.probability for one in best])
        for tta, views in _count_views(answer.tta for answer in answers).items():
            self._find_views(children, model, tta).inc(views)
        for label, images in Counts(one.label for one in best).items():
            self._find_class(children, model, label).inc(images)

    def _find_views(self, children: _ModelImages, model: str, tta: str) -> Counter:
        seen = children.views.get(tta)
        if seen is None:
            seen = children.views[tta] = self.views.labels(model, tta)
        return seen

    def _find_class(self, children: _ModelImages, model: str, label: str) -> Counter:
        best = children.classes.get(label)
        if best is None:
            best = children.classes[label] = self.classes.labels(model, label)
        return best

    @staticmethod
    def _seconds(stage: str, meaning: str, labels: Sequence[str] = ("model",)) -> Histogram:
        return Histogram(f"resnet_{stage}_seconds", meaning, labels, buckets=SECONDS, registry=None)


def _count_views(uses: Iterable[TtaUse]) -> Counts[str]:
    views: Counts[str] = Counts()
    for use in uses:
        views[use.used] += use.views
    return views


def _observe_one(histogram: Histogram, value: float) -> None:
    """What `histogram.observe` does, without looking at every bound."""
    histogram._sum.inc(value)
    histogram._buckets[bisect_left(histogram._upper_bounds, value)].inc(1)


def _observe(histogram: Histogram, values: Sequence[float]) -> None:
    """What `histogram.observe` does for each value, with one write a bucket."""
    histogram._sum.inc(sum(values))
    for bucket, count in Counts(bisect_left(histogram._upper_bounds, value) for value in values).items():
        histogram._buckets[bucket].inc(count)
