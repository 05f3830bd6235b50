"""Turn a network in torch into a model version: weights, graph, golden images, card.

network -> weights.safetensors -> graph.onnx beside it -> golden logits from torch -> the repository
"""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from models.card import GoldenImage, ModelCard, Preprocess
from models.checkpoints.graph import write_graph
from models.engines.torch import DTYPES, ServingForm, TorchEngine
from models.integrity import GRAPH, WEIGHTS
from models.networks.architecture import Network
from models.networks.normalisation import Normalise
from models.repository import ModelVersion, write_version
from models.selftest import encode_golden, measure_difference
from models.tensors import Tensor, parse_header

GOLDEN_SEED = 2015
HALF_PRECISION_MARGIN = 3


def export_version(
    network: Network,
    card: ModelCard,
    directory: Path,
    golden_views: Sequence[NDArray[np.uint8]] = (),
) -> ModelVersion:
    """Write `network` as the version `card` describes into the repository `directory`.

    `card.version` 0 means the next free number; `files` and `golden` are filled in here.
    `golden_views`: uint8 [H, W, 3] each, of any size; synthetic ones, not all of the native size, are always
    added. Raises CannotExport, VersionExists, BadVersion, OSError.
    """
    network = network.eval()
    weights = _dump_weights(network)
    files = {WEIGHTS: weights, GRAPH: write_graph(network, card.preprocess, _locate(weights))}
    views = [*golden_views, *synthetic_views(card.preprocess.crop_px)]
    golden = golden_images(network, card.preprocess, views)
    tolerance = {**_measure_tolerances(network, card.preprocess, golden), **card.tolerance}
    return write_version(directory, replace(card, golden=golden, tolerance=tolerance), files)


@torch.inference_mode()
def golden_images(
    network: Network, preprocess: Preprocess, views: Sequence[NDArray[np.uint8]]
) -> tuple[GoldenImage, ...]:
    """The logits torch gives on the CPU in float32 for each view, one at a time."""
    network, normalise = network.cpu().float().eval(), Normalise(preprocess)
    images = []
    for view in views:
        logits = network(normalise(torch.from_numpy(view[None].copy())))
        images.append(encode_golden(view, logits[0].numpy()))
    return tuple(images)


def _measure_tolerances(
    network: Network, preprocess: Preprocess, golden: Sequence[GoldenImage]
) -> dict[str, float]:
    """What half precision may differ on the golden images: three times what torch's bf16 shows on this CPU.

    Rounding differs between devices, its size does not; fp16 rounds eight times finer.
    """
    engine = TorchEngine(ServingForm(network, preprocess, DTYPES["bf16"]), threads=torch.get_num_threads())
    worst = max(measure_difference(image, engine) for image in golden)
    tolerance = float(f"{HALF_PRECISION_MARGIN * worst:.2g}")
    return {"bf16": tolerance, "fp16": tolerance}


def synthetic_views(crop_px: int) -> list[NDArray[np.uint8]]:
    """Smooth coloured noise, the same every time: one native view, one larger and one that is not square."""
    random = np.random.default_rng(GOLDEN_SEED)
    sizes = ((crop_px, crop_px), (crop_px * 8 // 7, crop_px * 8 // 7), (crop_px, crop_px * 3 // 2))
    return [_smooth_noise(random, height, width) for height, width in sizes]


def _smooth_noise(random: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Six waves of random direction in each colour: varied enough to test, and small as a PNG."""
    y, x = np.mgrid[0:height, 0:width] / 32.0
    waves = random.uniform(-2, 2, (3, 6, 3))
    sums = [sum(np.sin(a * y + b * x + 3 * c) for a, b, c in colour) for colour in waves]
    image = (127.5 + 127.5 * np.tanh(np.stack(sums, axis=-1) / 2)).astype(np.uint8)
    return image // 16 * 16  # fewer levels, a tenth of the PNG


def _dump_weights(network: Network) -> bytes:
    """Every floating-point tensor of the state dict as float32 (batch counts of BN are not weights)."""
    state = network.state_dict()
    weights = {
        key: value.detach().cpu().float().contiguous()
        for key, value in state.items()
        if value.is_floating_point()
    }
    return save(weights)


def _locate(weights: bytes) -> dict[str, Tensor]:
    return parse_header(io.BytesIO(weights), len(weights))
