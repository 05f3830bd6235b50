"""torch: the engine of a CUDA device, and the same network on the CPU, where the contract tests hold it.

    views -> normalise -> features at the precision (batch norms folded, channels last) -> mean, fc in float32

On the CPU the form below is called as it is; on CUDA, models.engines.torch.cuda compiles and captures it.
"""

from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.card import Preprocess
from models.engines.base import Engine, EngineError, EngineOutput, Placement
from models.integrity import CLASSIFIER_BIAS, CLASSIFIER_WEIGHT, WEIGHTS
from models.networks import find_architecture
from models.networks.architecture import Network, UnknownArchitecture
from models.networks.folding import fold_norms
from models.networks.normalisation import Normalise
from models.repository import ModelVersion
from models.tensors import read_header, read_tensor

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def list_precisions(version: ModelVersion, device: str) -> tuple[str, ...]:
    """On CUDA bf16 first, and only what the card states a tolerance for; on the CPU fp32 alone."""
    order = ("fp32",) if device == "cpu" else ("bf16", "fp16", "fp32")
    return tuple(precision for precision in order if precision in version.card.tolerance)


def open_engine(version: ModelVersion, placement: Placement) -> Engine:
    """See models.engines.opening."""
    if placement.precision not in DTYPES:
        raise EngineError(f"torch has no precision {placement.precision!r}; it has {', '.join(DTYPES)}")
    form = ServingForm(load_network(version), version.card.preprocess, DTYPES[placement.precision])
    if placement.device == "cpu":
        return TorchEngine(form, placement.threads)
    from models.engines.torch.cuda import CudaEngine

    return CudaEngine(form, torch.device(placement.device), version.card.preprocess.crop_px)


def load_network(version: ModelVersion) -> Network:
    """The version's network with its weights, in eval mode; raises EngineError if they do not fit."""
    path = version.path / WEIGHTS
    try:
        network = find_architecture(version.card.architecture).build(len(version.card.labels))
        tensors = read_header(path)
        state = {name: torch.from_numpy(read_tensor(path, tensor)) for name, tensor in tensors.items()}
        missing, unexpected = network.load_state_dict(state, strict=False)
    except (UnknownArchitecture, RuntimeError, ValueError, OSError) as err:
        raise EngineError(f"{version.reference} cannot be loaded by torch: {err}") from err
    unfit = [*unexpected, *(key for key in missing if not key.endswith("num_batches_tracked"))]
    if unfit:
        raise EngineError(f"{version.reference}: {unfit[0]} does not fit {version.card.architecture}")
    return network.eval()


class ServingForm(nn.Module):
    """A network as it is served: uint8 views [N, H, W, 3] in; logits and features, both float32, out."""

    def __init__(self, network: Network, preprocess: Preprocess, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = fold_norms(network).to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]  # has both
        self.network.fc.float()  # the last layer stays exact
        self.normalise, self.dtype = Normalise(preprocess), dtype

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        x = self.normalise(views).to(self.dtype, memory_format=torch.channels_last)
        features = self.network.features(x).float()  # [N, C, h, w]
        return self.network.fc(features.mean(dim=(2, 3))), features

    def read_classifier(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The last layer: weight float32 [K, C] and bias float32 [K]."""
        state = self.network.state_dict()
        weight, bias = (state[key].cpu().numpy() for key in (CLASSIFIER_WEIGHT, CLASSIFIER_BIAS))
        return weight, bias


class TorchEngine:
    """One model version by torch on the CPU. See base.Engine; a call at a time, `threads` set for all."""

    def __init__(self, form: ServingForm, threads: int) -> None:
        self._form = form
        self._threads = threads
        self._classifier = form.read_classifier()
        self._calls = Lock()  # torch's thread count belongs to the process

    @torch.inference_mode()
    def infer(self, views: NDArray[np.uint8], *, features: bool = False, threads: int = 1) -> EngineOutput:
        """See base.Engine."""
        check_views(views)
        with self._calls:
            torch.set_num_threads(1 if threads == 1 else self._threads)
            try:
                logits, maps = self._form(torch.from_numpy(np.array(views)))  # a copy: views may be read-only
            except RuntimeError as err:
                raise EngineError(f"torch: {err}") from err
        return EngineOutput(logits.numpy(), maps.contiguous().numpy() if features else None)

    @property
    def classifier(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The last layer: weight float32 [K, C] and bias float32 [K]."""
        return self._classifier

    def close(self) -> None:
        """Nothing to release before the garbage collector does."""


def check_views(views: NDArray[np.uint8]) -> None:
    """Raise EngineError unless `views` is uint8 [N, H, W, 3] with at least one view."""
    if views.dtype != np.uint8 or views.ndim != 4 or views.shape[3] != 3 or 0 in views.shape:
        raise EngineError(f"views are {views.dtype} {list(views.shape)}, expected uint8 [N, H, W, 3]")
