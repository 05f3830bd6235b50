"""What every network has in common: a name, a native crop, a body whose last feature map can be reached."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from models.card import Preprocess


class UnknownArchitecture(ValueError):
    """No architecture has that name; the message suggests the nearest ones."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        near = difflib.get_close_matches(name, known, n=3) or list(known)[:3]
        super().__init__(
            f"no architecture is named {name!r}; near it: {', '.join(near)} "
            "(`python -m models archs` lists them all)"
        )


class Network(nn.Module):
    """A fully convolutional body, global average pooling and one linear classifier.

    Subclasses define `features`; `fc` maps its channels to classes. He et al. 2015, section 3.3.
    """

    fc: nn.Linear

    def features(self, x: Tensor) -> Tensor:
        """Images float32 [N, 3, H, W], normalised -> the last feature map [N, C, h, w]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Images float32 [N, 3, H, W], normalised -> logits [N, K]."""
        logits: Tensor = self.fc(self.features(x).mean(dim=(2, 3)))
        return logits


@dataclass(frozen=True, slots=True)
class Architecture:
    """A named network: `build(classes)` makes it with fresh weights.

    `preprocess` is how its family's images are usually prepared, `window` the side of its last feature map
    for the native crop (7 or 8), `classes` its data set's. models.networks.counting says what it costs.
    """

    name: str
    build: Callable[[int], Network]
    classes: int
    window: int
    preprocess: Preprocess

    @property
    def crop_px(self) -> int:
        """The side of the view it was designed for."""
        return self.preprocess.crop_px
