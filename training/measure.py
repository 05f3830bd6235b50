"""Error and loss of a network while it trains: one native view of each image, in float32 as served."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.networks.architecture import Network
from training.augment import normalise
from training.data.statistics import Statistics
from training.distributed import Ranks, sum_over_ranks

BATCH = 500


@dataclass(frozen=True, slots=True)
class Score:
    """Top-1 `error` in percent and mean cross-entropy `loss` over `images` images."""

    error: float
    loss: float
    images: int


@torch.no_grad()
def measure_error(
    network: Network, views: Iterable[tuple[Tensor, Tensor]], statistics: Statistics, ranks: Ranks
) -> Score:
    """Score `network` on `views`: (uint8 [n, H, W, 3], int64 [n]), this process's part of the images.

    Sums are added over all processes, so every image counts once. Leaves the network in evaluation mode.
    """
    network.eval()
    mean, std = statistics.mean.to(ranks.device), statistics.std.to(ranks.device)
    sums = torch.zeros(3, dtype=torch.float64, device=ranks.device)  # loss, wrong, images
    for pixels, labels in views:
        targets = labels.to(ranks.device)
        logits = network(normalise(pixels.to(ranks.device), mean, std))
        sums[0] += F.cross_entropy(logits, targets, reduction="sum")
        sums[1] += (logits.argmax(dim=1) != targets).sum()
        sums[2] += len(targets)
    loss, wrong, images = sum_over_ranks(sums, ranks).tolist()
    return Score(100 * wrong / images, loss / images, int(images))
