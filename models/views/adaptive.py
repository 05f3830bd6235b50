"""tta=adaptive: look once; look again, closer, only when the first look leaves doubt and there is time.

Doubt is a margin between the two best probabilities, as given out (temperature applied), under the one in
the card, which training fits on the validation split. The second look is ten crops, unless the card names
another: a network of 32-pixel images gains nothing from crops of enlarged ones.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from models.card import Preprocess, SecondLook
from models.preprocess import ViewPlan, plan_center
from models.views.base import Look, Looks, Scores, ViewContext, ViewPolicy, ViewShape
from models.views.merging import margin, merge_scores
from models.views.mirror import plan_mirror
from models.views.planned import check_views, make_look
from models.views.ten_crop import plan_ten_crop

# For a model nobody fitted: about a fifth of images fall under it with networks of 8 % error.
DEFAULT_MARGIN = 0.5
DEFAULT_MEAN_VIEWS = 3.0
MAX_HELD_BYTES = 4_000_000  # of one image between its looks
SECOND_LOOKS: dict[SecondLook, Callable[[int, int, Preprocess], ViewPlan]] = {
    "ten_crop": plan_ten_crop,
    "mirror": plan_mirror,
}


class Adaptive(ViewPolicy):
    """One view, then those of the second look (less the first, if it is one), whose scores replace it."""

    name = "adaptive"
    looks_again = True

    def shapes(self, height: int, width: int, context: ViewContext) -> tuple[ViewShape, ...]:
        return check_views([plan_center(height, width, context.preprocess)], context)

    def cost(self, height: int, width: int, context: ViewContext) -> float:
        return context.fitted.mean_views or DEFAULT_MEAN_VIEWS

    def look(self, image: NDArray[np.uint8], context: ViewContext) -> Looks:
        height, width = image.shape[:2]
        first = plan_center(height, width, context.preprocess)
        second = _plan_second(height, width, first, context)
        look = make_look(image, [first], context)
        look_again = _prepare(image, second, context)
        del image
        seen = yield look
        scores = merge_scores(seen, context)
        if not _is_doubtful(scores, context) or not context.may_look_again(check_views([second], context)):
            return scores
        outputs = yield look_again()
        is_in_second = len(outputs) < len(_find_plan(context)(height, width, context.preprocess).crops)
        again = merge_scores([*seen, *outputs] if is_in_second else outputs, context)
        return replace(again, views=len(seen) + len(outputs))


def _prepare(image: NDArray[np.uint8], plan: ViewPlan, context: ViewContext) -> Callable[[], Look]:
    """The second look: cut when it is wanted; at once from a large image, so that no queue holds those."""
    if image.nbytes <= MAX_HELD_BYTES:
        return partial(make_look, image, [plan], context)
    look = make_look(image, [plan], context)
    return lambda: look


def _is_doubtful(scores: Scores, context: ViewContext) -> bool:
    fitted = context.fitted.margin
    return margin(scores.probabilities) < (DEFAULT_MARGIN if fitted is None else fitted)


def _plan_second(height: int, width: int, first: ViewPlan, context: ViewContext) -> ViewPlan:
    """Of the second look's views those not yet seen."""
    plan = _find_plan(context)(height, width, context.preprocess)
    if (plan.height, plan.width) != (first.height, first.width):
        return plan
    return replace(plan, crops=tuple(crop for crop in plan.crops if crop not in first.crops))


def count_second_views(second: SecondLook, preprocess: Preprocess) -> int:
    """How many views a second look adds: those not yet seen."""
    side = preprocess.resize_px
    first = plan_center(side, side, preprocess)
    plan = SECOND_LOOKS[second](side, side, preprocess)
    is_same_size = (plan.height, plan.width) == (first.height, first.width)
    return len(plan.crops) - (is_same_size and first.crops[0] in plan.crops)


def _find_plan(context: ViewContext) -> Callable[[int, int, Preprocess], ViewPlan]:
    return SECOND_LOOKS[context.fitted.second or "ten_crop"]


POLICY: ViewPolicy = Adaptive()
