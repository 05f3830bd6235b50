"""The CIFAR networks: 6n+2 layers on 32x32 images, residual and plain. He et al. 2015, section 4.2."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from models.card import Preprocess
from models.networks.architecture import Architecture, Network
from models.networks.shortcuts import PadShortcut

DEPTHS = (20, 32, 44, 56, 110, 1202)  # 6n + 2 for n = 3, 5, 7, 9, 18, 200
CHANNELS = (16, 32, 64)
# Mean and standard deviation of the 50,000 training images, per channel.
CIFAR10 = Preprocess(32, 32, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))


class CifarBlock(nn.Module):
    """Two 3x3 convolutions with batch norm; y = relu(F(x) + shortcut(x)), without the sum when plain.

    The shortcut is the identity where the shape stays, option A where it changes. Section 4.2.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, is_residual: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.is_residual = is_residual
        changes_shape = stride != 1 or in_channels != channels
        self.shortcut = PadShortcut(in_channels, channels, stride) if changes_shape else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x) if self.is_residual else y)


class CifarResNet(Network):
    """3x3 conv 16, three stages of n blocks at 32/16/8 px with 16/32/64 channels, global average pool, fc."""

    def __init__(self, depth: int, classes: int = 10, is_residual: bool = True) -> None:
        super().__init__()
        if (depth - 2) % 6:
            raise ValueError(f"depth {depth} is not 6n+2; the paper's are {DEPTHS}")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, 1, is_residual)
        self.layer2 = self._stage(16, 32, blocks, 2, is_residual)
        self.layer3 = self._stage(32, 64, blocks, 2, is_residual)
        self.fc = nn.Linear(64, classes)

    @staticmethod
    def _stage(in_channels: int, channels: int, blocks: int, stride: int, is_residual: bool) -> nn.Sequential:
        first = CifarBlock(in_channels, channels, stride, is_residual)
        rest = [CifarBlock(channels, channels, 1, is_residual) for _ in range(blocks - 1)]
        return nn.Sequential(first, *rest)

    def features(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))  # [N, 16, H, W]
        x = self.layer1(x)
        x = self.layer2(x)  # [N, 32, H/2, W/2]
        return self.layer3(x)  # type: ignore[no-any-return]  # Sequential is untyped; [N, 64, H/4, W/4]


def _architecture(kind: str, depth: int) -> Architecture:
    build = partial(CifarResNet, depth, is_residual=kind == "resnet")
    return Architecture(f"{kind}{depth}-cifar", build, classes=10, window=8, preprocess=CIFAR10)


ARCHITECTURES = [_architecture(kind, depth) for kind in ("resnet", "plain") for depth in DEPTHS]
