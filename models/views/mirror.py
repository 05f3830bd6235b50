"""tta=mirror: the centre crop and its mirror image."""

from dataclasses import replace

from models.card import Preprocess
from models.preprocess import ViewPlan, plan_center
from models.views.base import ViewContext, ViewPolicy
from models.views.planned import PlannedPolicy


class Mirror(PlannedPolicy):
    """Two views."""

    name = "mirror"

    def plans(self, height: int, width: int, context: ViewContext) -> tuple[ViewPlan, ...]:
        return (plan_mirror(height, width, context.preprocess),)


def plan_mirror(height: int, width: int, preprocess: Preprocess) -> ViewPlan:
    """The centre crop of an image of this size, and the same mirrored."""
    plan = plan_center(height, width, preprocess)
    mirrored = tuple(replace(crop, is_mirrored=True) for crop in plan.crops)
    return replace(plan, crops=plan.crops + mirrored)


POLICY: ViewPolicy = Mirror()
