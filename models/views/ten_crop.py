"""tta=ten_crop: four corners and the centre, and the same of the mirror image. He et al. 2015, 3.4."""

from dataclasses import replace

from models.card import Preprocess
from models.preprocess import Crop, ViewPlan, center_crop, resized_size
from models.views.base import ViewContext, ViewPolicy
from models.views.planned import PlannedPolicy


class TenCrop(PlannedPolicy):
    """Ten views of the native crop, in torchvision's order, the shorter side at 256/224 of it."""

    name = "ten_crop"

    def plans(self, height: int, width: int, context: ViewContext) -> tuple[ViewPlan, ...]:
        return (plan_ten_crop(height, width, context.preprocess),)


def plan_ten_crop(height: int, width: int, preprocess: Preprocess) -> ViewPlan:
    """The ten crops of an image of this size; the second five are cut as if from its mirror image."""
    rows, columns = resized_size(height, width, preprocess.ten_crop_px)
    side = preprocess.crop_px
    five = _five_crops(rows, columns, side)
    mirrored = (replace(crop, left=columns - crop.right, is_mirrored=True) for crop in five)
    return ViewPlan(rows, columns, (*five, *mirrored))


def _five_crops(height: int, width: int, side: int) -> tuple[Crop, ...]:
    """Top left, top right, bottom left, bottom right, centre."""
    corners = [(top, left) for top in (0, height - side) for left in (0, width - side)]
    return (*(Crop(top, left, side, side) for top, left in corners), center_crop(height, width, side))


POLICY: ViewPolicy = TenCrop()
