"""tta=mirror: the centre crop and its mirror image."""

from dataclasses import replace

from models.preprocess import ViewPlan, plan_center
from models.views.base import ViewContext, ViewPolicy
from models.views.planned import PlannedPolicy


class Mirror(PlannedPolicy):
    """Two views."""

    name = "mirror"

    def plans(self, height: int, width: int, context: ViewContext) -> tuple[ViewPlan, ...]:
        plan = plan_center(height, width, context.preprocess)
        mirrored = tuple(replace(crop, is_mirrored=True) for crop in plan.crops)
        return (replace(plan, crops=plan.crops + mirrored),)


POLICY: ViewPolicy = Mirror()
