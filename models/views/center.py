"""tta=center: one view, the centre crop."""

from models.preprocess import ViewPlan, plan_center
from models.views.base import ViewContext, ViewPolicy
from models.views.planned import PlannedPolicy


class Center(PlannedPolicy):
    """torchvision's Resize and CenterCrop, as the card's Preprocess says."""

    name = "center"

    def plans(self, height: int, width: int, context: ViewContext) -> tuple[ViewPlan, ...]:
        return (plan_center(height, width, context.preprocess),)


POLICY: ViewPolicy = Center()
