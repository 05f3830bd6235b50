"""tta=dense: fully convolutional over the whole image at the 10-crop's size, and its mirror image."""

from models.preprocess import ViewPlan, plan_whole
from models.views.base import ViewContext, ViewPolicy
from models.views.planned import PlannedPolicy


class Dense(PlannedPolicy):
    """Two views of the image's own shape; the pool rule says how their scores are read."""

    name = "dense"

    def plans(self, height: int, width: int, context: ViewContext) -> tuple[ViewPlan, ...]:
        return (plan_whole(height, width, context.preprocess.ten_crop_px),)


POLICY: ViewPolicy = Dense()
