"""Look at many images under a view policy, offline: the service's decoder, policies and engine in one loop.

images -> policy.look -> views of the same shape together -> engine -> scores, and the views' own logits
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import groupby, islice

import numpy as np
from numpy.typing import NDArray

from models.card import ModelCard, PolicyCard, PoolRule
from models.engines.base import Engine
from models.ensemble import read_classifier
from models.views import find_policy
from models.views.base import Look, Looks, Scores, ViewContext, ViewOutput
from models.views.merging import member_shares
from models.views.pooling import member_logits
from training.data.served import Pixels

CHUNK = 50  # images looked at together
MAX_VIEW_PIXELS = 50_000_000
POOLS: tuple[PoolRule, ...] = ("window", "global")

Pooled = dict[PoolRule, NDArray[np.float32]]  # of one image [V, M, K]


@dataclass(frozen=True, slots=True)
class Record:
    """What a policy saw of N images.

    `probabilities`: float32 [N, K], as the service answers. `views`: int64 [N]. `logits`: by pool rule the
    scores of every view by every member of an ensemble (one, if it is none), float32 [N, V, M, K]; empty if
    images had different numbers of views. `shares`: what each member counts, float32 [M].
    """

    probabilities: NDArray[np.float32]
    views: NDArray[np.int64]
    logits: dict[PoolRule, NDArray[np.float32]]
    shares: NDArray[np.float32]


@dataclass(slots=True)
class _Seeing:
    """One image under way: its generator, the look it waits for, what it has been sent."""

    looks: Looks
    look: Look | None
    outputs: list[ViewOutput] = field(default_factory=list)
    scores: Scores | None = None

    def send(self, outputs: Sequence[ViewOutput]) -> None:
        """Answer the look; either the next one is asked for, or the scores are there."""
        self.outputs.extend(outputs)
        try:
            self.look = self.looks.send(outputs)
        except StopIteration as end:
            self.look, self.scores = None, end.value


def make_context(card: ModelCard, engine: Engine, tta: str, fitted: PolicyCard | None = None) -> ViewContext:
    """The context the service would use for `tta`; `fitted` in place of the card's entry."""
    chosen = card.policy(tta) if fitted is None else fitted
    return ViewContext(
        preprocess=card.preprocess,
        window=card.window,
        classifier=read_classifier(engine),
        fitted=chosen,
        merge=chosen.merge,
        pool=chosen.pool,
        max_view_pixels=MAX_VIEW_PIXELS,
    )


def record_policy(tta: str, images: Iterable[Pixels], context: ViewContext, engine: Engine) -> Record:
    """Look at every image under `tta`, a chunk on each core.

    Raises EngineError, BadViewOption, ViewTooLarge.
    """
    # Under either pool rule the record holds both, for which the feature maps are needed.
    context = replace(context, keeps_features=context.pool == "global")
    contexts = {pool: replace(context, pool=pool) for pool in POOLS}

    def record(chunk: list[Pixels]) -> list[tuple[Scores, Pooled]]:
        """What is kept of each image: not its feature maps, which are large."""
        return [
            (one.scores, {pool: _pool(one.outputs, contexts[pool]) for pool in POOLS})
            for one in _see(tta, chunk, context, engine)
            if one.scores is not None
        ]

    cores = len(os.sched_getaffinity(0))
    chunks = _chunks(images)
    seen: list[tuple[Scores, Pooled]] = []
    with ThreadPoolExecutor(cores) as lanes:
        while group := list(islice(chunks, cores)):
            for recorded in lanes.map(record, group):
                seen.extend(recorded)
    scores, pooled = [one for one, _ in seen], [one for _, one in seen]
    views = np.array([score.views for score in scores], np.int64)
    same = len(set(views.tolist())) == 1
    return Record(
        np.stack([score.probabilities for score in scores]),
        views,
        {pool: np.stack([logits[pool] for logits in pooled]) for pool in POOLS} if same else {},
        member_shares(context.classifier),
    )


def look_at(tta: str, images: Sequence[Pixels], context: ViewContext, engine: Engine) -> list[Scores]:
    """The scores of each image, views of one shape sharing a batch; raises what record_policy does."""
    return [one.scores for one in _see(tta, images, context, engine) if one.scores is not None]


def _see(tta: str, images: Sequence[Pixels], context: ViewContext, engine: Engine) -> list[_Seeing]:
    policy = find_policy(tta)
    seeing = [_begin(policy.look(image, context)) for image in images]
    while waiting := [one for one in seeing if one.look is not None]:
        _answer(waiting, engine)
    return seeing


def _chunks(images: Iterable[Pixels]) -> Iterator[list[Pixels]]:
    chunk: list[Pixels] = []
    for image in images:
        chunk.append(image)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _begin(looks: Looks) -> _Seeing:
    return _Seeing(looks, next(looks))


def _pool(outputs: Sequence[ViewOutput], context: ViewContext) -> NDArray[np.float32]:
    return np.stack([member_logits(output, context) for output in outputs])  # [V, M, K]


def _answer(waiting: Sequence[_Seeing], engine: Engine) -> None:
    """Compute every view that is waited for, equal shapes in one batch, and send the outputs."""
    asked = [
        (one, place, view, one.look.features)
        for one in waiting
        if one.look is not None
        for place, view in enumerate(one.look.views)
    ]
    asked.sort(key=lambda item: (item[2].shape, item[3]))
    answers: dict[tuple[int, int], ViewOutput] = {}
    for (_, features), group in groupby(asked, key=lambda item: (item[2].shape, item[3])):
        members = list(group)
        output = engine.infer(np.stack([view for _, _, view, _ in members]), features=features)
        for row, (one, place, _, _) in enumerate(members):
            maps = None if output.features is None else output.features[row]
            each = None if output.members is None else output.members[row]
            answers[id(one), place] = ViewOutput(output.logits[row], maps, each)
    for one in waiting:
        if one.look is not None:
            one.send([answers[id(one), place] for place in range(len(one.look.views))])
