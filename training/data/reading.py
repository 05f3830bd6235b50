"""Decode image files in parallel workers, with models/ as the service does; broken ones are named once."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.data.listing import Listing
from training.data.served import Pixels, Unreadable, read_image
from training.errors import DataMissing

BATCH = 100  # images measured at a time
PREFETCH = 4  # batches a worker keeps ready

Cut = Callable[[Pixels, int], Pixels]  # (image [H, W, 3], place in the epochs' endless row) -> view


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that cannot be decoded, and why."""

    path: Path
    reason: str


@dataclass(slots=True)
class BrokenFiles:
    """Which files could not be decoded so far; each is reported once through `say`."""

    is_skipping: bool
    say: Callable[[str], None]
    seen: set[Path]

    def report(self, files: Iterable[Broken]) -> None:
        """Account for files; raises DataMissing unless they are to be skipped."""
        for file in files:
            if not self.is_skipping:
                raise DataMissing(
                    f"{file.path} cannot be decoded ({file.reason}); remove it, or go on without such "
                    "images: --set data.skip_broken=true"
                )
            if file.path not in self.seen:
                self.seen.add(file.path)
                count = f"{len(self.seen)} so far"
                self.say(f"skipped {file.path}: it cannot be decoded ({count}): {file.reason}")


@dataclass(frozen=True, slots=True)
class Views:
    """A batch as a worker made it: `views` uint8 [n, H, W, 3], `targets` int64 [n], files found broken."""

    views: Tensor
    targets: Tensor
    broken: tuple[Broken, ...]

    def pin_memory(self) -> "Views":
        """Called by DataLoader, so that copies to a GPU run beside the computation."""
        return Views(self.views.pin_memory(), self.targets.pin_memory(), self.broken)


class _Files(Dataset[tuple[Pixels | None, int, tuple[Broken, ...]]]):
    """Item (index, place) is the view cut from image `index`, or from the next one that can be decoded."""

    def __init__(self, listing: Listing, cut: Cut, is_replacing: bool) -> None:
        self._listing, self._cut, self._is_replacing = listing, cut, is_replacing

    def __len__(self) -> int:
        return len(self._listing)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Pixels | None, int, tuple[Broken, ...]]:
        index, place = item
        broken: list[Broken] = []
        for offset in range(len(self._listing)):
            found = (index + offset) % len(self._listing)
            path = self._listing.paths[found]
            try:
                pixels = read_image(path)
            except Unreadable as err:
                broken.append(Broken(path, str(err)))
                if not self._is_replacing:
                    break
                continue
            return self._cut(pixels, place), int(self._listing.targets[found]), tuple(broken)
        return None, 0, tuple(broken)


def read_views(
    listing: Listing, batches: Iterable[list[tuple[int, int]]], cut: Cut, broken: BrokenFiles, workers: int
) -> Iterator[Views]:
    """The views of each batch of (index, place), decoded by `workers` processes (0: here), in order.

    With `broken.is_skipping`, a broken file is replaced by the next readable one, whatever the process, so a
    run stays repeatable. Raises DataMissing.
    """
    loader = _open_loader(_Files(listing, cut, broken.is_skipping), batches, workers)
    for batch in loader:
        broken.report(batch.broken)
        if not len(batch.targets):
            raise DataMissing("no image of the data set can be decoded")
        yield batch


def read_once(
    listing: Listing, indices: Iterable[int], cut: Cut, broken: BrokenFiles, workers: int = 0
) -> Iterator[Views]:
    """Each image of `indices` once, for measuring; a broken one is left out, or stops. Raises DataMissing."""
    rows = [(int(index), int(index)) for index in indices]
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    for views in _open_loader(_Files(listing, cut, False), batches, workers):
        broken.report(views.broken)
        yield views


def _open_loader(
    files: _Files, batches: Iterable[list[tuple[int, int]]], workers: int
) -> "DataLoader[Views]":
    loader: DataLoader[Views] = DataLoader(
        files,  # type: ignore[arg-type]  # an item becomes a Views only in collate_fn
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=PREFETCH if workers else None,
    )
    return loader


def _collate(items: list[tuple[Pixels | None, int, tuple[Broken, ...]]]) -> Views:
    kept = [(view, target) for view, target, _ in items if view is not None]
    views: NDArray[np.uint8] = (
        np.stack([view for view, _ in kept]) if kept else np.empty((0, 0, 0, 3), np.uint8)
    )
    targets = torch.tensor([target for _, target in kept], dtype=torch.int64)
    return Views(torch.from_numpy(views), targets, tuple(file for _, _, files in items for file in files))
