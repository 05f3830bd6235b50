"""What the policies have in common: views that follow from the image's size alone, seen in one look."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.preprocess import Crop, ViewPlan, cut_views
from models.views.base import Look, Looks, Place, View, ViewContext, ViewPolicy, ViewShape, ViewTooLarge
from models.views.merging import merge_scores


class PlannedPolicy(ViewPolicy):
    """One look at the views of `plans`, averaged. A subclass names itself and plans."""

    def plans(self, height: int, width: int, context: ViewContext) -> tuple[ViewPlan, ...]:
        """What to cut from an upright image of this size; raises BadViewOption."""
        raise NotImplementedError

    def shapes(self, height: int, width: int, context: ViewContext) -> tuple[ViewShape, ...]:
        return check_views(self.plans(height, width, context), context)

    def cost(self, height: int, width: int, context: ViewContext) -> float:
        native_pixels = context.preprocess.crop_px**2
        shapes = self.shapes(height, width, context)
        return sum(shape.count * shape.height * shape.width for shape in shapes) / native_pixels

    def look(self, image: NDArray[np.uint8], context: ViewContext) -> Looks:
        height, width = image.shape[:2]
        look = make_look(image, self.plans(height, width, context), context)
        del image  # a request waits in a queue with its views only
        outputs = yield look
        return merge_scores(outputs, context)


def check_views(plans: Sequence[ViewPlan], context: ViewContext) -> tuple[ViewShape, ...]:
    """The shapes of the plans' views, equal ones counted together; raises ViewTooLarge."""
    counts: dict[tuple[int, int], int] = {}
    for crop in (crop for plan in plans for crop in plan.crops):
        _check_crop(crop, context.max_view_pixels)
        counts[crop.height, crop.width] = counts.get((crop.height, crop.width), 0) + 1
    return tuple(ViewShape(count, height, width) for (height, width), count in counts.items())


def _check_crop(crop: Crop, max_view_pixels: int) -> None:
    pixels = crop.height * crop.width
    if pixels > max_view_pixels:
        raise ViewTooLarge(
            f"a view of this image would have {crop.width} x {crop.height} = {pixels / 1e6:.1f} MP, "
            f"the limit is {max_view_pixels / 1e6:.1f} MP (SERVE_MAX_VIEW_PIXELS); ask for tta=center"
        )


def make_look(image: View, plans: Sequence[ViewPlan], context: ViewContext) -> Look:
    """Cut the plans' views from an upright image, uint8 [H, W, 3]; raises ViewTooLarge before it resizes."""
    check_views(plans, context)
    views = [view for plan in plans for view in cut_views(image, plan, context.preprocess.interpolation)]
    places = [_place(image, plan, crop) for plan in plans for crop in plan.crops if context.keeps_features]
    native = context.preprocess.crop_px
    is_larger = any(crop.height > native or crop.width > native for plan in plans for crop in plan.crops)
    features = context.keeps_features or (context.pool == "window" and is_larger)
    return Look(tuple(views), features, tuple(places))


def _place(image: View, plan: ViewPlan, crop: Crop) -> Place:
    """A crop of the resized image in pixels of the image itself."""
    down, across = image.shape[0] / plan.height, image.shape[1] / plan.width
    return Place(
        crop.left * across, crop.top * down, crop.right * across, crop.bottom * down, crop.is_mirrored
    )
