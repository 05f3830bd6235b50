"""Which training images make up the batch of step s: a pure function, so a run resumes mid-epoch for free.

Epochs are shuffled independently and laid end to end; step s takes positions [s*B, (s+1)*B) of that endless
row. Every batch is full and every image is seen once an epoch, also when B does not divide the set.
"""

from functools import lru_cache

import torch
from torch import Tensor

from training.randomness import Stream, make_generator


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, images: int) -> Tensor:
    """The order of epoch `epoch`: a permutation, int64 [images]."""
    return torch.randperm(images, generator=make_generator(seed, Stream.ORDER, epoch))


def batch_indices(seed: int, step: int, batch: int, images: int) -> Tensor:
    """Images of step `step` (counted from 0): int64 [batch], indices into the training split."""
    position, end = step * batch, (step + 1) * batch
    parts = []
    while position < end:
        epoch, offset = divmod(position, images)
        take = min(end - position, images - offset)
        parts.append(epoch_order(seed, epoch, images)[offset : offset + take])
        position += take
    return torch.cat(parts)
