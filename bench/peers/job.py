"""What every peer is asked to do, in the way their documentation shows it: Pillow, torchvision, torch, eager.

The weights are those of the model version that the service serves. Runs in the peers' environment.
"""

import io
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from models.networks import find_architecture
from models.repository import read_version
from models.tensors import read_header, read_tensor

TOP_K = 5
Answer = dict[str, Any]


class Preparer:
    """From encoded images to tensors, by the rule of one model version."""

    def __init__(self, version_dir: str) -> None:
        self.version = read_version(Path(version_dir))
        rule = self.version.card.preprocess
        self._transform = transforms.Compose(
            [
                transforms.Resize(rule.resize_px),
                transforms.CenterCrop(rule.crop_px),
                transforms.ToTensor(),
                transforms.Normalize(rule.mean, rule.std),
            ]
        )

    def decode(self, data: bytes) -> Tensor:
        """An encoded image as float32 [3, H, W], ready for the network."""
        return self.prepare(Image.open(io.BytesIO(data)))

    def prepare(self, image: Image.Image) -> Tensor:
        """The same from an image that is open."""
        prepared: Tensor = self._transform(image.convert("RGB"))  # [3, H, W]
        return prepared


class ImageJob(Preparer):
    """The whole job."""

    def __init__(self, version_dir: str) -> None:
        super().__init__(version_dir)
        card, weights = self.version.card, self.version.path / "weights.safetensors"
        tensors = {
            name: torch.from_numpy(read_tensor(weights, tensor).copy())
            for name, tensor in read_header(weights).items()
        }
        self._labels = card.labels
        self._network = find_architecture(card.architecture).build(len(self._labels))
        self._network.load_state_dict(tensors)
        self._network.eval()

    @torch.inference_mode()
    def predict(self, batch: Tensor) -> Tensor:
        """float32 [N, 3, H, W] to probabilities [N, K]."""
        probabilities: Tensor = self._network(batch).softmax(1)
        return probabilities

    def answer(self, probabilities: Tensor) -> Answer:
        """The top five of one image, from its probabilities [K]."""
        values, indices = probabilities.topk(min(TOP_K, len(self._labels)))
        ranked = zip(indices.tolist(), values.tolist(), strict=True)
        return {
            "predictions": [
                {"index": index, "label": self._labels[index], "probability": probability}
                for index, probability in ranked
            ]
        }


def read_arguments() -> tuple[str, int]:
    """VERSION_DIR and PORT of the command line."""
    return sys.argv[1], int(sys.argv[2])
