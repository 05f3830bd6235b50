"""A checkpoint from elsewhere, imported, scores as its own network does in torch code of its own.

The network, the views and the averages of the reference are torchvision's and torch's alone: ResNet-18 with
its 7 x 7 pooling, Resize, TenCrop, horizontal_flip. The views may differ by a grey level in a few pixels,
which moves scores, so the reference scores the views really cut, once they are seen to be torchvision's.
"""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from models.cli import main
from models.engines.onnx import OnnxEngine
from models.ensemble import read_classifier
from models.repository import ModelRepository, ModelVersion
from models.views import find_policy
from models.views.base import Scores, ViewContext, ViewOutput
from tests.models.making import randomise_norms
from tests.models.views.looking import photograph

MEAN, STD = (0.48, 0.46, 0.41), (0.23, 0.22, 0.225)
CLASSES, TOLERANCE = 12, 1e-4
SIZE = (130, 171)  # of the photograph


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = torchvision.models.resnet18(num_classes=CLASSES)
    randomise_norms(made)
    return made.eval()


@pytest.fixture(scope="module")
def version(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    """As people share them: under `state_dict`, with DataParallel's prefix, beside other things."""
    home = tmp_path_factory.mktemp("elsewhere")
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"epoch": 90, "state_dict": state, "best_acc1": 69.8}, home / "their.pth.tar.pth")
    (home / "labels.txt").write_text("".join(f"thing {index}\n" for index in range(CLASSES)))
    options = ["--arch", "resnet18", "--labels", home / "labels.txt", "--name", "theirs", "--to", home / "to"]
    options += ["--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD))]
    assert main(["import", *map(str, [home / "their.pth.tar.pth", *options])]) == 0
    return ModelRepository([home / "to"]).find("theirs")


def look(
    version: ModelVersion, tta: str, image: NDArray[np.uint8]
) -> tuple[Scores, Sequence[NDArray[np.uint8]]]:
    """Ours: scores, and the views they are of."""
    engine, fitted = OnnxEngine(version), version.card.policy(tta)
    card, pool, merge = version.card, fitted.pool, fitted.merge
    context = ViewContext(
        card.preprocess, card.window, read_classifier(engine), fitted, merge, pool, max_view_pixels=4_000_000
    )
    looks = find_policy(tta).look(image, context)
    wanted = next(looks)
    outputs = [engine.infer(view[None], features=wanted.features) for view in wanted.views]
    try:
        looks.send(
            [ViewOutput(one.logits[0], None if one.features is None else one.features[0]) for one in outputs]
        )
    except StopIteration as end:
        scores: Scores = end.value
        return scores, wanted.views
    raise AssertionError("one look was expected")


def resize(image: NDArray[np.uint8], side: int) -> Image.Image:
    resized: Image.Image = v2.Resize(side)(Image.fromarray(image))
    return resized


@torch.inference_mode()
def score(network: nn.Module, views: Sequence[NDArray[np.uint8]]) -> tuple[Tensor, Tensor]:
    """Theirs: mean logits, and mean probabilities, the classifier sliding over 7 x 7 windows of each view."""
    prepare = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    body = nn.Sequential(*list(network.children())[:-2])
    classifier = list(network.children())[-1]
    scores = []
    for view in views:
        features = body(prepare(view)[None])
        windows = F.avg_pool2d(features, 7, stride=1).flatten(2)  # [1, 512, positions]
        scores.append(classifier(windows[0].T).mean(dim=0))
    logits = torch.stack(scores)
    return logits.mean(dim=0), logits.softmax(dim=1).mean(dim=0)


def check(version: ModelVersion, network: nn.Module, tta: str, expected: Sequence[Image.Image]) -> None:
    found, views = look(version, tta, photograph(*SIZE))
    assert len(views) == len(expected)
    for view, image in zip(views, expected, strict=True):
        assert np.abs(view.astype(int) - np.asarray(image)).max() <= 1
    logits, probabilities = score(network, views)
    assert np.abs(found.logits - logits.numpy()).max() < TOLERANCE
    assert np.abs(found.probabilities - probabilities.numpy()).max() < TOLERANCE


def test_imported_checkpoint_gives_the_ten_crop_scores_of_its_own_network(
    version: ModelVersion, network: nn.Module
) -> None:
    check(version, network, "ten_crop", v2.TenCrop(224)(resize(photograph(*SIZE), 256)))


def test_imported_checkpoint_gives_the_multi_scale_scores_of_its_own_network(
    version: ModelVersion, network: nn.Module
) -> None:
    expected = []
    for side in (224, 256, 384, 480, 640):
        resized = resize(photograph(*SIZE), side)
        expected += [resized, v2.functional.horizontal_flip(resized)]
    check(version, network, "multi_scale", expected)
