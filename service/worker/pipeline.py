"""From an encoded image to merged scores: decode, cut views, hand looks out, take outputs in.

Knows the model's card and the caller's options; knows no queue, no thread and no socket. Every refusal is one
of service.errors, with a sentence the caller can act on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from models.card import ModelCard
from models.decode import (
    DecodeLimits,
    ImageError,
    TooManyBytes,
    TooManyPixels,
    read_header,
)
from models.decode import UnsupportedFormat as UnreadableFormat
from models.engines.base import Engine
from models.ensemble import read_classifier
from models.maps import ActivationMap, MapCanvas, Sight, draw_map
from models.views.base import (
    PAPER_SCALES,
    BadViewOption,
    Look,
    Scores,
    ViewContext,
    ViewOutput,
    ViewPolicy,
    ViewShape,
    ViewTooLarge,
)
from service.errors import BadRequest, BrokenImage, ServiceError, TooLarge, UnsupportedFormat
from service.types import ClassifyOptions
from service.worker.decoding import DecoderProcesses, InlineDecoder
from service.worker.request import Request


@dataclass(frozen=True, slots=True)
class ClassMap:
    """The activation map of one class."""

    class_index: int
    drawn: ActivationMap


@dataclass(frozen=True, slots=True)
class Answer:
    """Merged scores, and the map if one was asked for."""

    scores: Scores
    map: ClassMap | None = None


HasTime = Callable[[Request, tuple[ViewShape, ...]], bool]


DEFAULT_TOP_K = ClassifyOptions().top_k


@dataclass(frozen=True, slots=True)
class PipelineLimits:
    """What one image may cost before anything is spent on it; `precision` when a request names none."""

    decode: DecodeLimits
    max_view_pixels: int
    precision: str


class Pipeline:
    """One model version's. Several lanes may call it, each with its own request."""

    def __init__(
        self,
        card: ModelCard,
        engines: Mapping[str, Engine],
        policies: Mapping[str, ViewPolicy],
        limits: PipelineLimits,
        decoder: InlineDecoder | DecoderProcesses | None = None,
    ) -> None:
        """`engines` by precision, at least one, the default first; `policies` by name."""
        self._card = card
        self._engines = engines
        self._policies = policies
        self._limits = limits
        self._decoder = decoder or InlineDecoder()
        self.default_precision = limits.precision if limits.precision in engines else next(iter(engines))
        self._classifiers = {name: read_classifier(engine) for name, engine in engines.items()}
        self._contexts: dict[tuple[object, ...], ViewContext] = {}

    def inspect(self, request: Request) -> int:
        """Check what is asked, and predict the bytes decoding will hold. Raises ServiceError."""
        options = request.message.options
        self._check_top_k(options.top_k)
        self._check_map_class(options.map_class)
        request.tta = options.tta or self._card.default_tta
        request.precision = self._choose_precision(options)
        try:
            request.header = read_header(request.image)
        except ImageError as err:
            raise _translate(err) from err
        return request.header.cost_bytes

    def decode(self, request: Request, has_time: HasTime) -> Look:
        """The request's first look, from its image, which is let go. Raises ServiceError.

        `has_time` answers, when a policy asks, whether the deadline leaves room for more views.
        """
        policy = self._find_policy(request.tta)
        self._check_scales(policy, request.message.options)
        context = self._find_context(policy, request.message.options, request.precision)
        if policy.looks_again:
            context = replace(context, may_look_again=partial(has_time, request))
        try:
            image = self._decoder.decode(
                request.image, self._limits.decode, request.header, request.message.deadline
            )
            request.image = b""
            request.size = (image.pixels.shape[0], image.pixels.shape[1])
            if request.message.options.wants_map:
                request.canvas = MapCanvas.make(image)
            request.looks = policy.look(image.pixels, context)
            return next(request.looks)
        except ImageError as err:
            raise _translate(err) from err
        except ViewTooLarge as err:
            raise TooLarge(str(err)) from err
        except BadViewOption as err:
            raise BadRequest(str(err), "scales") from err

    def advance(self, request: Request) -> Look | Answer:
        """Give the policy the outputs of its look: another look, or the answer."""
        outputs: list[ViewOutput] = [output for output in request.outputs if output is not None]
        request.outputs = []
        assert request.looks is not None
        if request.canvas is not None:
            request.sights += _list_sights(request, outputs)
        try:
            return request.looks.send(outputs)
        except StopIteration as end:
            scores: Scores = end.value
            return Answer(scores, self._draw_map(request, scores))

    def _draw_map(self, request: Request, scores: Scores) -> ClassMap | None:
        if request.canvas is None:
            return None
        asked = request.message.options.map_class
        class_index = int(scores.probabilities.argmax()) if asked is None else asked
        row = self._classifiers[request.precision].weight[class_index]
        return ClassMap(class_index, draw_map(request.canvas, request.sights, row))

    def close(self) -> None:
        """End what decodes; call it when no lane does any more."""
        self._decoder.close()

    def list_costs(self) -> dict[str, float]:
        """What a square image of the native size costs under each policy, in native views, by pixels."""
        side = self._card.preprocess.resize_px
        options = ClassifyOptions()
        return {
            tta: policy.cost(side, side, self._make_context(policy, options, self.default_precision))
            for tta, policy in self._policies.items()
        }

    def _check_top_k(self, top_k: int) -> None:
        classes = len(self._card.labels)
        if top_k != DEFAULT_TOP_K and not 1 <= top_k <= classes:
            raise BadRequest(f"top_k is {top_k}, the model has {classes} classes", "top_k")

    def _check_map_class(self, map_class: int | None) -> None:
        classes = len(self._card.labels)
        if map_class is not None and not 0 <= map_class < classes:
            raise BadRequest(f"class is {map_class}, the model's classes are 0 to {classes - 1}", "class")

    def _check_scales(self, policy: ViewPolicy, options: ClassifyOptions) -> None:
        if options.scales is not None and not policy.takes_scales:
            takers = ", ".join(name for name, one in self._policies.items() if one.takes_scales)
            raise BadRequest(f"scales is for tta={takers}, this request's tta is {policy.name}", "scales")

    def _find_policy(self, tta: str) -> ViewPolicy:
        policy = self._policies.get(tta)
        if policy is None:
            known = ", ".join(sorted(self._policies))
            raise BadRequest(f"tta is {tta[:64]!r}, it can be: {known}", "tta")
        return policy

    def _find_context(self, policy: ViewPolicy, options: ClassifyOptions, precision: str) -> ViewContext:
        if options.scales is not None:  # too many values to keep
            return self._make_context(policy, options, precision)
        key = (policy.name, options.merge, options.pool, options.wants_map, precision)
        context = self._contexts.get(key)
        if context is None:
            context = self._contexts[key] = self._make_context(policy, options, precision)
        return context

    def _make_context(self, policy: ViewPolicy, options: ClassifyOptions, precision: str) -> ViewContext:
        fitted = self._card.policy(policy.name)
        return ViewContext(
            preprocess=self._card.preprocess,
            window=self._card.window,
            classifier=self._classifiers[precision],
            fitted=fitted,
            merge=options.merge or fitted.merge,
            pool=options.pool or fitted.pool,
            max_view_pixels=self._limits.max_view_pixels,
            scales=options.scales or PAPER_SCALES,
            keeps_features=options.wants_map,
        )

    def _choose_precision(self, options: ClassifyOptions) -> str:
        precision = options.precision or self.default_precision
        if precision not in self._engines:
            has = ", ".join(sorted(self._engines))
            raise BadRequest(f"precision is {precision}, this model version has: {has}", "precision")
        return precision


def _list_sights(request: Request, outputs: Sequence[ViewOutput]) -> list[Sight]:
    assert request.look is not None
    seen = zip(request.look.places, outputs, strict=True)
    return [Sight(place, output.features) for place, output in seen if output.features is not None]


def _translate(err: ImageError) -> ServiceError:
    if isinstance(err, TooManyBytes | TooManyPixels):
        return TooLarge(str(err))
    if isinstance(err, UnreadableFormat):
        return UnsupportedFormat(str(err))
    return BrokenImage(str(err))
