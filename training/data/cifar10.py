"""CIFAR-10 (Krizhevsky 2009) from its official archives, binary or python layout.

The python layout is a pickle, which is read without unpickling (training.data.pickled).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.arrays import LabelledImages
from training.data.pickled import BadPickle, read_byte_array, read_pickle
from training.errors import DataMissing

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = ("test_batch",)
RECORD_BYTES = 1 + 3 * 32 * 32  # label, then 1,024 red, green and blue bytes each, row-major
FETCH = "python -m training fetch cifar10 --data {root}"


@dataclass(frozen=True, slots=True)
class Layout:
    """One of the official archives: its folder, how its files end, and how one is read.

    `read` gives pixels uint8 [N, 3072], the three planes of an image one after the other, and labels [N].
    """

    folder: str
    suffix: str
    read: Callable[[bytes], tuple[NDArray[np.uint8], NDArray[np.int64]]]


def load_cifar10(root: Path) -> tuple[LabelledImages, LabelledImages]:
    """Read the 50,000 training and 10,000 test images under `root`; raises DataMissing."""
    folder, layout = _find_layout(root)
    return _read_batches(folder, TRAIN, layout), _read_batches(folder, TEST, layout)


def _read_binary(data: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD_BYTES)
    return records[:, 1:], records[:, 0].astype(np.int64)


def _read_python(data: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    batch = read_pickle(data)
    if not isinstance(batch, dict):
        raise BadPickle("it holds no dictionary")
    return read_byte_array(batch["data"]), np.asarray(batch["labels"], np.int64)


LAYOUTS = (
    Layout("cifar-10-batches-bin", ".bin", _read_binary),
    Layout("cifar-10-batches-py", "", _read_python),
)


def _find_layout(root: Path) -> tuple[Path, Layout]:
    """The folder that holds the batches: `root` itself, or one of the official folder names inside it."""
    for layout in LAYOUTS:
        for folder in (root, root / layout.folder):
            if (folder / f"{TRAIN[0]}{layout.suffix}").is_file():
                return folder, layout
    names = " or ".join(layout.folder for layout in LAYOUTS)
    raise DataMissing(f"no CIFAR-10 under {root} ({names}); fetch it with: {FETCH.format(root=root)}")


def _read_batches(folder: Path, names: Iterable[str], layout: Layout) -> LabelledImages:
    """Read batch files into images [N, 32, 32, 3], in file order."""
    pixels, targets = zip(
        *(_read_batch(folder / f"{name}{layout.suffix}", layout) for name in names), strict=True
    )
    return LabelledImages(np.concatenate(pixels), np.concatenate(targets), LABELS)


def _read_batch(path: Path, layout: Layout) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One batch file, checked; raises DataMissing."""
    remedy = f"fetch CIFAR-10 again: {FETCH.format(root=path.parent.parent)}"
    try:
        pixels, targets = layout.read(path.read_bytes())
        planes = pixels.reshape(len(targets), 3, 32, 32)
    except FileNotFoundError as err:
        raise DataMissing(f"{path} is missing; {remedy}") from err
    except (ValueError, KeyError) as err:
        raise DataMissing(f"{path} is damaged ({err}); {remedy}") from err
    if not len(targets) or targets.min() < 0 or targets.max() >= len(LABELS):
        raise DataMissing(f"{path} is damaged (no labels, or one outside 0..9); {remedy}")
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), targets  # [N, 3, H, W] -> [N, H, W, 3]
