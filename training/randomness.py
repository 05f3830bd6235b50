"""All randomness of a run is a function of (seed, stream, position): nothing to save, nothing to lose.

A run resumed at step s draws exactly what it would have drawn, whatever happened before, on any number of
processes; no global generator is ever used.
"""

from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What the numbers are for; a new use gets a new stream so that old runs stay as they were."""

    WEIGHTS = 0
    SPLIT = 1
    ORDER = 2
    AUGMENT = 3
    MIXUP = 4
    CUT = 5


def derive_seed(seed: int, stream: Stream, position: int = 0) -> int:
    """Mix the three into a 63-bit seed (numpy's SeedSequence, stable across versions and platforms)."""
    state = np.random.SeedSequence([seed, int(stream), position]).generate_state(1, np.uint64)
    return int(state[0]) >> 1


def make_generator(seed: int, stream: Stream, position: int = 0) -> torch.Generator:
    """A CPU generator at the start of the stream (seed, stream, position)."""
    return torch.Generator().manual_seed(derive_seed(seed, stream, position))
