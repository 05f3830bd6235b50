"""One network being trained: the step, the learning rate, the weight average, capture and restore."""

import copy
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.architecture import Network
from training.data.source import Batch
from training.distributed import Ranks, share_gradients
from training.graphed import GraphedGradients, require_graphs
from training.recipe import Recipe
from training.schedule import ScheduleState, after_batch, after_evaluation, is_warming, learning_rate


class Learner:
    """Network, optimizer and schedule of one run of `steps` steps."""

    def __init__(
        self, recipe: Recipe, network: Network, steps: int, ranks: Ranks, class_weights: Tensor | None = None
    ) -> None:
        """`class_weights`: float32 [K], the weight of each class's loss."""
        self.recipe, self.steps, self._ranks = recipe, steps, ranks
        self.network: Network = network.to(ranks.device)
        self.network.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network) if recipe.run.ema is not None else None
        self.schedule = ScheduleState()
        rule = recipe.optimizer
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            rule.lr,
            momentum=rule.momentum,
            nesterov=rule.nesterov,
            weight_decay=rule.weight_decay,
        )
        self._class_weights = None if class_weights is None else class_weights.to(ranks.device)
        self._forward: nn.Module = share_gradients(self.network, ranks)
        if recipe.run.compile:
            self._forward.compile()
        self._graphed: GraphedGradients | None = None
        if recipe.run.cuda_graph:
            require_graphs(recipe, ranks)
            is_mixing = recipe.augment.mixup > 0
            self._graphed = GraphedGradients(self._compute_gradients, self.network, is_mixing)

    @property
    def evaluated(self) -> Network:
        """What is evaluated and exported: the average of the weights where the recipe keeps one."""
        return self.network if self.average is None else self.average

    @property
    def is_warming(self) -> bool:
        """Whether the schedule needs the training error of every step at once."""
        return is_warming(self.recipe.schedule, self.schedule)

    def step(self, batch: Batch, step: int) -> Tensor:
        """One update; returns float32 [2] on the device: this process's part of the whole batch's mean loss,
        and its number of wrong predictions."""
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        if self._graphed is None:
            result = self._compute_gradients(batch.x, batch.targets, batch.share)
        else:
            result = self._graphed(batch)
        self.optimizer.step()
        self._update_average()
        return result

    def _compute_gradients(self, x: Tensor, targets: Tensor, share: float | Tensor) -> Tensor:
        """Forward, loss, backward: gradients in the parameters, float32 [2] as `step` returns it."""
        with self._precision():
            logits = self._forward(x)  # [n, K]
        loss = self._loss(logits.float(), targets, share)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        wrong = (logits.detach().argmax(dim=1) != targets).sum()
        return torch.stack([loss.detach() / self._ranks.world, wrong.float()])

    def _loss(self, logits: Tensor, targets: Tensor, share: float | Tensor) -> Tensor:
        """Cross-entropy; of both images' classes by their shares under mixup."""
        rule = self.recipe.optimizer

        def loss(targets: Tensor) -> Tensor:
            return F.cross_entropy(logits, targets, self._class_weights, label_smoothing=rule.label_smoothing)

        if isinstance(share, float) and share == 1:
            return loss(targets)
        return share * loss(targets) + (1 - share) * loss(targets.flip(0))

    def rate(self, step: int) -> float:
        """The learning rate of `step`."""
        return learning_rate(self.recipe.schedule, self.recipe.optimizer.lr, self.schedule, step, self.steps)

    def saw_batch(self, error: float) -> None:
        """Tell the schedule a step's training error, in percent."""
        self.schedule = after_batch(self.recipe.schedule, self.schedule, error)

    def saw_evaluation(self, error: float) -> None:
        """Tell the schedule a validation error, in percent."""
        self.schedule = after_evaluation(self.recipe.schedule, self.schedule, error)

    def _precision(self) -> AbstractContextManager[None]:
        return torch.autocast(
            self._ranks.device.type, torch.bfloat16, enabled=self.recipe.run.precision == "bf16"
        )

    @torch.no_grad()
    def _update_average(self) -> None:
        """average += (1 - ema) * (weights - average); counters are copied."""
        if self.average is None or self.recipe.run.ema is None:
            return
        for kept, new in zip(
            self.average.state_dict().values(), self.network.state_dict().values(), strict=True
        ):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - self.recipe.run.ema)
            else:
                kept.copy_(new)
