"""tta=adaptive: look once; look again at ten crops only when the first look leaves doubt and there is time.

Doubt is a margin between the two best probabilities, as given out (temperature applied), under the one in the
card, which training fits on the validation split.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from models.preprocess import ViewPlan, plan_center
from models.views.base import Look, Looks, Scores, ViewContext, ViewPolicy, ViewShape
from models.views.merging import margin, merge_scores
from models.views.planned import check_views, make_look
from models.views.ten_crop import plan_ten_crop

# For a model nobody fitted: about a fifth of images fall under it with networks of 8 % error.
DEFAULT_MARGIN = 0.5
DEFAULT_MEAN_VIEWS = 3.0
MAX_HELD_BYTES = 4_000_000  # of one image between its looks


class Adaptive(ViewPolicy):
    """One view, then ten (nine where the first is one of them), whose scores replace the first's."""

    name = "adaptive"

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
        is_one_of_ten = len(outputs) < 10
        again = merge_scores([*seen, *outputs] if is_one_of_ten else outputs, context)
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
    """Of the ten crops those not yet seen."""
    ten = plan_ten_crop(height, width, context.preprocess)
    if (ten.height, ten.width) != (first.height, first.width):
        return ten
    return replace(ten, crops=tuple(crop for crop in ten.crops if crop not in first.crops))


POLICY: ViewPolicy = Adaptive()
