"""Images in folders, one folder a class: finding them, splitting them, saying what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.errors import DataMissing
from training.randomness import Stream, make_generator

SUFFIXES = frozenset([".jpg", ".jpeg", ".jpe", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif"])


@dataclass(frozen=True, slots=True)
class Listing:
    """Image files and their classes: `targets` int64 [N], `labels` in the order of the folders' names."""

    paths: tuple[Path, ...]
    targets: NDArray[np.int64]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def pick(self, indices: NDArray[np.int64]) -> "Listing":
        """The images at `indices`, in that order."""
        return Listing(tuple(self.paths[index] for index in indices), self.targets[indices], self.labels)


def list_folder(root: Path) -> Listing:
    """The images below each folder of `root`; raises DataMissing."""
    if not root.is_dir():
        raise DataMissing(f"{root} is not a directory; --data names one that holds a folder for each class")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(folders) < 2:
        raise DataMissing(f"{root} holds {len(folders)} folders; at least two are needed, one for each class")
    paths: list[Path] = []
    targets: list[int] = []
    for index, folder in enumerate(folders):
        files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        found = sorted(path for path in files if path.suffix.lower() in SUFFIXES)
        if not found:
            raise DataMissing(f"{folder} holds no image ({' '.join(sorted(SUFFIXES))}); fill it or remove it")
        paths.extend(found)
        targets.extend([index] * len(found))
    return Listing(tuple(paths), np.array(targets, np.int64), tuple(folder.name for folder in folders))


def list_imagenet(root: Path) -> tuple[Listing, Listing]:
    """ImageNet's usual folders: root/train/WNID/*.JPEG and root/val/WNID/*.JPEG; raises DataMissing."""
    for part in ("train", "val"):
        if not (root / part).is_dir():
            raise DataMissing(
                f"{root / part} is missing; ImageNet needs an account at image-net.org: unpack its training "
                f"and validation archives into {root}/train/WNID/ and {root}/val/WNID/"
            )
    if any(path.is_file() and path.suffix.lower() in SUFFIXES for path in (root / "val").iterdir()):
        raise DataMissing(
            f"{root / 'val'} holds images directly; move each into the folder of its class (WNID), as the "
            "ILSVRC2012 validation ground truth lists them"
        )
    train, val = list_folder(root / "train"), list_folder(root / "val")
    if train.labels != val.labels:
        odd = sorted(set(train.labels) ^ set(val.labels))[0]
        raise DataMissing(f"{odd} is a class of only one of {root / 'train'} and {root / 'val'}")
    return train, val


def split_listing(listing: Listing, shares: Sequence[float], seed: int) -> list[Listing]:
    """Part every class at random into `shares` (each at least one image) and the rest, which comes first.

    Raises DataMissing if a class is too small for that.
    """
    parts: list[list[NDArray[np.int64]]] = [[] for _ in range(len(shares) + 1)]
    generator = make_generator(seed, Stream.SPLIT)
    for target, label in enumerate(listing.labels):
        members = np.flatnonzero(listing.targets == target)
        counts = [max(1, round(share * len(members))) for share in shares]
        if len(members) <= sum(counts):
            raise DataMissing(
                f"class {label!r} has {len(members)} images; at least {len(shares) + 1} are needed: "
                "to train, to choose and to test"
            )
        shuffled = members[torch.randperm(len(members), generator=generator).numpy()]
        bounds = np.cumsum([0, *counts])
        for number, (start, end) in enumerate(pairwise(bounds), start=1):
            parts[number].append(shuffled[start:end])
        parts[0].append(shuffled[bounds[-1] :])
    return [listing.pick(np.sort(np.concatenate(part))) for part in parts]
