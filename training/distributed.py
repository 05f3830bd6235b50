"""Which process this is among how many, and on which device: everything that knows of processes is here.

Started plainly there is one; under torchrun there are as many as it starts, and nothing else changes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


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


@contextmanager
def open_ranks() -> Iterator[Ranks]:
    """Join the processes torchrun started (its RANK, WORLD_SIZE and LOCAL_RANK), or be the only one."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if world == 1:
        yield Ranks(device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(device, dist.get_rank(), world)
    finally:
        dist.destroy_process_group()


def share_gradients(network: nn.Module, ranks: Ranks) -> nn.Module:
    """The network as it is called in training: gradients become the mean over all processes.

    Every process normalises over its own images (batch norm is not synchronised, as in the paper's two-GPU
    runs); running statistics are the main process's.
    """
    if ranks.world == 1:
        return network
    ids = [ranks.device.index] if ranks.device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=ids, gradient_as_bucket_view=True)


def sum_over_ranks(values: Tensor, ranks: Ranks) -> Tensor:
    """`values` added up over all processes, on every one of them."""
    if ranks.world > 1:
        dist.all_reduce(values)
    return values


def wait_for_main(ranks: Ranks) -> None:
    """Hold every process until all are here (the main one may have been writing)."""
    if ranks.world > 1:
        dist.barrier()


def copy_buffers_from_main(network: nn.Module, ranks: Ranks) -> None:
    """Give every process the main one's running statistics, so that all measure the same network."""
    if ranks.world > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)
