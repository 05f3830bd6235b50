"""What a trained network does on its test images: predictions, layer responses."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.networks import find_architecture
from models.networks.architecture import Network
from models.repository import ModelVersion
from training.augment import normalise
from training.data.arrays import LabelledImages
from training.data.statistics import Statistics
from training.export import restore_network
from training.journal import Value, read_journal
from training.recipe import Recipe, parse_recipe
from training.report.images import open_test_images
from training.start import load_start
from training.state import TrainState, load_state

BATCH = 500
RESPONSE_IMAGES = 2000  # that the responses' deviation is measured on


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One run. `probabilities`: float32 [N, K] on the test images; `responses`: see measure_responses.

    `trained_images`: how many it learnt from.
    """

    directory: Path
    recipe: Recipe
    state: TrainState
    journal: tuple[dict[str, Value], ...]
    probabilities: NDArray[np.float32]
    test: LabelledImages
    responses: tuple[float, ...]
    trained_images: int

    @property
    def test_error(self) -> float:
        """Top-1 error on the test images, in percent."""
        return 100 * float((self.probabilities.argmax(axis=1) != self.test.targets).mean())

    @property
    def steps(self) -> int:
        """The steps taken up to the last evaluation."""
        return max([int(line.get("step") or 0) for line in self.evaluations], default=self.state.step)

    @property
    def evaluations(self) -> list[dict[str, Value]]:
        """The journal's lines that hold errors."""
        return [line for line in self.journal if line.get("event") == "evaluation"]


def diagnose(directory: Path, data_root: Path) -> Diagnosis:
    """Look at the best checkpoint of a run; raises BadCheckpoint, DataMissing."""
    state = load_state(directory / "best.pt")
    recipe = parse_recipe(state.recipe)
    test, trained_images = open_test_images(recipe, data_root)
    network = restore_network(state, recipe)
    statistics = Statistics(state.mean, state.std, torch.zeros(3, 3))
    return Diagnosis(
        directory,
        recipe,
        state,
        tuple(dict(line) for line in read_journal(directory / "metrics.jsonl")),
        predict(network, test, statistics),
        test,
        measure_responses(network, test, statistics),
        trained_images,
    )


@torch.inference_mode()
def predict(network: Network, data: LabelledImages, statistics: Statistics) -> NDArray[np.float32]:
    """Probabilities float32 [N, K], every image once, one native view, float32."""
    parts = []
    for start in range(0, len(data), BATCH):
        images = torch.from_numpy(data.images[start : start + BATCH])
        parts.append(network(normalise(images, statistics.mean, statistics.std)).softmax(dim=1))
    probabilities: NDArray[np.float32] = torch.cat(parts).numpy()
    return probabilities


@torch.inference_mode()
def measure_responses(network: Network, data: LabelledImages, statistics: Statistics) -> tuple[float, ...]:
    """The deviation of each 3x3 layer's output, after its batch norm and before ReLU or addition.

    In the order of the network. He et al. 2015, figure 7.
    """
    sums: dict[str, Tensor] = {}
    hooks = []

    def watch(name: str) -> None:
        def add(module: nn.Module, given: tuple[Tensor, ...], response: Tensor) -> None:
            x = response.double()
            sums[name] = sums.get(name, torch.zeros(3, dtype=torch.float64)) + torch.tensor(
                [x.numel(), x.sum(), x.square().sum()], dtype=torch.float64
            )

        hooks.append(network.get_submodule(name).register_forward_hook(add))

    for name in norms_after_3x3(network):
        watch(name)
    some = data.pick(np.arange(min(RESPONSE_IMAGES, len(data))))
    predict(network, some, statistics)
    for hook in hooks:
        hook.remove()
    return tuple(float((square / n - (total / n) ** 2).sqrt()) for n, total, square in sums.values())


def measure_version_responses(version: ModelVersion, data: LabelledImages) -> tuple[float, ...]:
    """`measure_responses` of a model version, imported ones too; raises BadVersion."""
    start = load_start(version.path)
    network = find_architecture(version.card.architecture).build(len(version.card.labels))
    network.load_state_dict(start.weights)
    return measure_responses(network.eval(), data, start.statistics)


def norms_after_3x3(network: Network) -> list[str]:
    """The batch norms that follow 3x3 convolutions: bnX beside convX, in the network's order."""
    return [
        name.replace("conv", "bn")
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
    ]
