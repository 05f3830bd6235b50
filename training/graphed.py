"""Forward, loss and backward of one batch as a CUDA graph: one launch instead of hundreds.

A CIFAR ResNet's kernels are shorter than their launches, so a GPU waits for Python; a graph replays them all.
The optimizer stays outside (a few launches), so that the learning rate may change between steps.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.data.source import Batch
from training.distributed import Ranks
from training.errors import BadRecipe
from training.recipe import Recipe

WARM_STEPS = 3  # cuDNN chooses its kernels and workspaces before anything is recorded

# (x float32 [n, 3, H, W], targets int64 [n], share) -> float32 [2]; leaves the gradients in the parameters
ComputeGradients = Callable[[Tensor, Tensor, "float | Tensor"], Tensor]


def require_graphs(recipe: Recipe, ranks: Ranks) -> None:
    """See that `run.cuda_graph` can be had; raises BadRecipe."""
    if ranks.device.type != "cuda":
        raise BadRecipe("run.cuda_graph needs a CUDA device; leave it out here")
    if ranks.world > 1:
        raise BadRecipe("run.cuda_graph is for one process; leave it out under torchrun")
    if recipe.run.compile:
        raise BadRecipe("run.cuda_graph and run.compile exclude each other; choose the faster one")


@dataclass(slots=True)
class _Recorded:
    """A graph with the places it reads from and writes to."""

    graph: torch.cuda.CUDAGraph
    x: Tensor
    targets: Tensor
    share: Tensor
    result: Tensor


class GraphedGradients:
    """`compute` as a graph, recorded at the first batch; every batch must have its shape."""

    def __init__(self, compute: ComputeGradients, network: nn.Module, is_mixing: bool) -> None:
        """`is_mixing`: the share of a batch differs from 1 (mixup), so it is an input of the graph."""
        self._compute, self._network, self._is_mixing = compute, network, is_mixing
        self._recorded: _Recorded | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """Compute the gradients of `batch`; returns what `compute` does, float32 [2]."""
        if self._recorded is None:
            self._recorded = self._record(batch)
        recorded = self._recorded
        recorded.x.copy_(batch.x)
        recorded.targets.copy_(batch.targets)
        recorded.share.fill_(batch.share)
        recorded.graph.replay()
        return recorded.result.clone()

    def _record(self, batch: Batch) -> _Recorded:
        """Warm up beside the main stream, undo what that did to the running statistics, and capture."""
        x, targets = batch.x.clone(), batch.targets.clone()
        share = torch.full((), batch.share, device=x.device)
        given: float | Tensor = share if self._is_mixing else 1.0
        before = [buffer.clone() for buffer in self._network.buffers()]
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_STEPS):
                self._compute(x, targets, given)
        torch.cuda.current_stream().wait_stream(beside)
        for buffer, value in zip(self._network.buffers(), before, strict=True):
            buffer.copy_(value)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self._compute(x, targets, given)
        return _Recorded(graph, x, targets, share, result)
