"""Error and loss of a network on images in memory, one native view each, in float32 as served."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from models.networks.architecture import Network
from training.augment import normalise
from training.data.arrays import LabelledImages
from training.data.statistics import Statistics
from training.distributed import Ranks

BATCH = 500


@dataclass(frozen=True, slots=True)
class Score:
    """Top-1 `error` in percent and mean cross-entropy `loss` over `images` images."""

    error: float
    loss: float
    images: int


@torch.no_grad()
def measure_error(network: Network, data: LabelledImages, statistics: Statistics, ranks: Ranks) -> Score:
    """Score `network` on every image of `data` once; leaves it in evaluation mode."""
    network.eval()
    mean, std = statistics.mean.to(ranks.device), statistics.std.to(ranks.device)
    loss, wrong = 0.0, 0
    for start in range(0, len(data), BATCH):
        images = torch.from_numpy(data.images[start : start + BATCH]).to(ranks.device)
        targets = torch.from_numpy(data.targets[start : start + BATCH]).to(ranks.device)
        logits = network(normalise(images, mean, std))
        loss += float(F.cross_entropy(logits, targets, reduction="sum"))
        wrong += int((logits.argmax(dim=1) != targets).sum())
    return Score(100 * wrong / len(data), loss / len(data), len(data))
