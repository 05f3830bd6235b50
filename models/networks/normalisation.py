"""What the graph does first, in torch: uint8 views to normalised float32 planes."""

import torch
from torch import Tensor, nn

from models.card import Preprocess


class Normalise(nn.Module):
    """uint8 views [N, H, W, 3] -> float32 [N, 3, H, W]: (views / 255 - mean) / std."""

    mean: Tensor
    std: Tensor

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(preprocess.mean), persistent=False)
        self.register_buffer("std", torch.tensor(preprocess.std), persistent=False)

    def forward(self, views: Tensor) -> Tensor:
        x = (views.float() / 255 - self.mean) / self.std
        return x.permute(0, 3, 1, 2)
