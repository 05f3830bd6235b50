"""tta=multi_scale: fully convolutional at several scales, each with its mirror image.

He et al. 2015, section 3.4: shorter sides of 224, 256, 384, 480 and 640 for a crop of 224, scores averaged.
"""

from models.preprocess import ViewPlan, plan_whole
from models.views.base import PAPER_SCALES, BadViewOption, ViewContext, ViewPolicy
from models.views.planned import PlannedPolicy


class MultiScale(PlannedPolicy):
    """Two views a scale, the paper's scales taken to this network's crop; `scales=` narrows the set."""

    name = "multi_scale"
    takes_scales = True

    def plans(self, height: int, width: int, context: ViewContext) -> tuple[ViewPlan, ...]:
        scales = _check_scales(context.scales)
        return tuple(plan_whole(height, width, context.preprocess.scale_px(scale)) for scale in scales)


def _check_scales(scales: tuple[int, ...]) -> list[int]:
    """The scales asked for, ascending, each once; raises BadViewOption."""
    known = ", ".join(str(scale) for scale in PAPER_SCALES)
    for scale in scales:
        if scale not in PAPER_SCALES:
            raise BadViewOption(f"scales has {scale}, it can hold: {known}")
    if not scales:
        raise BadViewOption(f"scales is empty, it can hold: {known}")
    return sorted(set(scales))


POLICY: ViewPolicy = MultiScale()
