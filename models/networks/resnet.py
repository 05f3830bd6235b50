"""The ImageNet networks: 18 to 152 layers, residual and plain. He et al. 2015, sections 3.3, 3.4 and table 1.

State dict keys are torchvision's, so that published weights load: conv1 bn1 layer1..4 fc, and
`downsample.0`/`.1` for a projection. Which variant a name means:

    resnet50, -101, -152        stride on the 3x3 convolution ("v1.5", what torchvision publishes)
    resnet50-v1, ...            stride on the first 1x1, as in the paper
    resnet18, resnet34          shortcut option B (what torchvision publishes)
    resnet34-a, -b, -c, ...     the option named; plain18, plain34: the same stacks without shortcuts
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from models.card import Preprocess
from models.networks.architecture import Architecture, Network
from models.networks.shortcuts import PadShortcut

Option = Literal["A", "B", "C", "plain"]

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
CHANNELS = (64, 128, 256, 512)
IMAGENET = Preprocess(256, 224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))  # as torchvision
EXPANSION = 4  # a bottleneck's last 1x1 has four times its channels


@dataclass(frozen=True, slots=True)
class Design:
    """What distinguishes the networks: depth, the shortcut, and where a bottleneck puts its stride."""

    depth: int
    option: Option = "B"
    strides_first_1x1: bool = False

    @property
    def expansion(self) -> int:
        """Output channels of a block as a multiple of its stage's."""
        return EXPANSION if self.depth >= 50 else 1


def build_shortcut(design: Design, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """The shortcut of one block (section 3.3); None where it is the identity, or absent in plain networks."""
    changes_shape = stride != 1 or in_channels != out_channels
    if design.option == "plain" or not (changes_shape or design.option == "C"):
        return None
    if design.option == "A":
        return PadShortcut(in_channels, out_channels, stride)
    projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    return nn.Sequential(projection, nn.BatchNorm2d(out_channels))


class Block(nn.Module):
    """What both kinds of block share: y = relu(F(x) + shortcut(x)), without the sum when plain."""

    def __init__(self, design: Design, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.is_residual = design.option != "plain"
        self.downsample = build_shortcut(design, in_channels, channels * design.expansion, stride)

    def residual(self, x: Tensor) -> Tensor:
        """F(x), before the addition."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        y = self.residual(x)
        if self.is_residual:
            y = y + (x if self.downsample is None else self.downsample(x))
        return F.relu(y)


class BasicBlock(Block):
    """Two 3x3 convolutions, each with batch norm; the stride is on the first."""

    def __init__(self, design: Design, in_channels: int, channels: int, stride: int) -> None:
        super().__init__(design, in_channels, channels, stride)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def residual(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))  # type: ignore[no-any-return]  # layers are untyped


class Bottleneck(Block):
    """1x1, 3x3, 1x1 convolutions with batch norm, the last with four times the channels. Figure 5."""

    def __init__(self, design: Design, in_channels: int, channels: int, stride: int) -> None:
        super().__init__(design, in_channels, channels, stride)
        stride_1x1, stride_3x3 = (stride, 1) if design.strides_first_1x1 else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, stride_1x1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride_3x3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * EXPANSION, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * EXPANSION)

    def residual(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))  # type: ignore[no-any-return]  # layers are untyped


class ResNet(Network):
    """7x7/2 convolution, 3x3/2 max pool, four stages, global average pool, fc. Table 1."""

    def __init__(self, design: Design, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = _build_stages(design)
        self.fc = nn.Linear(CHANNELS[-1] * design.expansion, classes)

    def features(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))  # [N, 64, H/2, W/2]
        x = self.maxpool(x)
        x = self.layer1(x)  # [N, 64e, H/4, W/4], e = expansion
        x = self.layer2(x)  # [N, 128e, H/8, W/8]
        x = self.layer3(x)  # [N, 256e, H/16, W/16]
        return self.layer4(x)  # type: ignore[no-any-return]  # Sequential is untyped; [N, 512e, H/32, W/32]


def _build_stages(design: Design) -> Iterator[nn.Sequential]:
    """The four stages; the first block of each but the first halves the size."""
    kind = BasicBlock if design.expansion == 1 else Bottleneck
    in_channels = 64
    for channels, blocks, stride in zip(CHANNELS, BLOCKS[design.depth], (1, 2, 2, 2), strict=True):
        stage = []
        for block in range(blocks):
            stage.append(kind(design, in_channels, channels, stride if block == 0 else 1))
            in_channels = channels * design.expansion
        yield nn.Sequential(*stage)


def _architecture(name: str, design: Design) -> Architecture:
    return Architecture(name, partial(ResNet, design), classes=1000, window=7, preprocess=IMAGENET)


_DESIGNS = {
    **{f"resnet{depth}": Design(depth) for depth in BLOCKS},
    **{f"resnet{depth}-v1": Design(depth, strides_first_1x1=True) for depth in (50, 101, 152)},
    **{f"resnet{depth}-{o.lower()}": Design(depth, o) for depth in (18, 34) for o in ("A", "B", "C")},
    **{f"plain{depth}": Design(depth, "plain") for depth in (18, 34)},
}

ARCHITECTURES = [_architecture(name, design) for name, design in _DESIGNS.items()]
