"""Which process this is among how many, and on which device. Nothing else knows about processes."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Ranks:
    """Process `rank` of `world`, computing on `device`."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes checkpoints, logs and the terminal."""
        return self.rank == 0

    def share(self, batch: int) -> tuple[int, int]:
        """This process's half-open range of a batch of `batch`."""
        return self.rank * batch // self.world, (self.rank + 1) * batch // self.world


def find_ranks() -> Ranks:
    """One process on the GPU where there is one, else on the CPU."""
    return Ranks(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
