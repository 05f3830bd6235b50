"""CIFAR-10 (Krizhevsky 2009) from its official archives, binary or python layout.

The python layout is a pickle; it is read by an unpickler that knows numpy arrays and nothing else.
"""

import io
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.arrays import LabelledImages
from training.errors import DataMissing

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = ("test_batch",)
RECORD_BYTES = 1 + 3 * 32 * 32  # label, then 1,024 red, green and blue bytes each, row-major
FETCH = "python -m training fetch cifar10 --data {root}"

_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}


class _ArraysOnly(pickle.Unpickler):
    """Unpickles dictionaries, lists, bytes and numpy arrays; anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in CIFAR-10")
        return super().find_class(module, name)


def load_cifar10(root: Path) -> tuple[LabelledImages, LabelledImages]:
    """Read the 50,000 training and 10,000 test images under `root`; raises DataMissing."""
    folder, read = _find_layout(root)
    return _read_batches(folder, TRAIN, read), _read_batches(folder, TEST, read)


class _Binary:
    suffix = ".bin"

    @staticmethod
    def read(data: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        records = np.frombuffer(data, np.uint8).reshape(-1, RECORD_BYTES)
        return records[:, 1:], records[:, 0].astype(np.int64)


class _Python:
    suffix = ""

    @staticmethod
    def read(data: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        batch = _ArraysOnly(io.BytesIO(data), encoding="bytes").load()  # see _ArraysOnly
        return np.asarray(batch[b"data"], np.uint8), np.asarray(batch[b"labels"], np.int64)


_LAYOUTS: dict[str, type[_Binary] | type[_Python]] = {
    "cifar-10-batches-bin": _Binary,
    "cifar-10-batches-py": _Python,
}


def _find_layout(root: Path) -> tuple[Path, type[_Binary] | type[_Python]]:
    """The folder that holds the batches: `root` itself, or one of the official folder names inside it."""
    for folder in (root, *(root / name for name in _LAYOUTS)):
        for layout in _LAYOUTS.values():
            if (folder / f"{TRAIN[0]}{layout.suffix}").is_file():
                return folder, layout
    raise DataMissing(
        f"no CIFAR-10 under {root} (looked for {' and '.join(_LAYOUTS)}); fetch it with: "
        + FETCH.format(root=root)
    )


def _read_batches(
    folder: Path, names: Iterable[str], layout: type[_Binary] | type[_Python]
) -> LabelledImages:
    """Read batch files into images [N, 32, 32, 3] in file order."""
    pixels, targets = [], []
    for name in names:
        path = folder / f"{name}{layout.suffix}"
        try:
            batch_pixels, batch_targets = layout.read(path.read_bytes())
        except FileNotFoundError as err:
            raise DataMissing(
                f"{path} is missing; fetch CIFAR-10 again: " + FETCH.format(root=folder.parent)
            ) from err
        except (ValueError, KeyError, EOFError, pickle.UnpicklingError) as err:
            raise DataMissing(
                f"{path} is damaged ({err}); fetch CIFAR-10 again: " + FETCH.format(root=folder.parent)
            ) from err
        if len(batch_targets) and not 0 <= batch_targets.min() <= batch_targets.max() < len(LABELS):
            raise DataMissing(f"{path} is damaged: a label lies outside 0..9")
        pixels.append(batch_pixels)
        targets.append(batch_targets)
    planes = np.concatenate(pixels).reshape(-1, 3, 32, 32)
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))  # [N, 3, H, W] -> [N, H, W, 3]
    return LabelledImages(images, np.concatenate(targets), LABELS)
