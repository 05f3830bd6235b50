"""The parameter-free shortcut of section 3.3: option A, identity with zero-padded channels."""

import torch.nn.functional as F
from torch import Tensor, nn


class PadShortcut(nn.Module):
    """Option A: every `stride`-th pixel, the new channels zero, half of them on each side; no parameters.

    Section 3.3 does not say where the zero channels go; both sides is what published CIFAR weights use.
    A module, so that the exporter sees it as one thing and can write it as one convolution.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.in_channels, self.channels, self.stride = in_channels, channels, stride

    @property
    def padding(self) -> tuple[int, int]:
        """How many zero channels come before and after the input's own."""
        missing = self.channels - self.in_channels
        return missing // 2, missing - missing // 2

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, channels, ceil(H / stride), ceil(W / stride)]."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.padding))
