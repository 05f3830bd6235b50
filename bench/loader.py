"""How fast files become training batches: `python -m bench.loader`. Ours against torchvision's, in one run.

ImageNet's folders with JPEGs of about 100 kB are made in a temporary directory; a round is one pass of the
paper's augmentation (shorter side in [256, 480], a random 224 crop and mirror image) with as many worker
processes as asked for. Rounds are interleaved. Rates per second depend on the neighbours; images per CPU
second, worker start-up included, do not. `--out FILE` writes the raw rounds.
"""

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from bench.decode import fit_jpegs
from training.distributed import Ranks
from training.environment import describe_environment
from training.recipe import load_recipe
from training.task import open_task

CLASSES = 4
BATCH = 32
LOW, HIGH, CROP = 256, 480, 224  # He et al. 2015, section 3.4
PROFILE = ("mean=channel", "std=one")


@dataclass(frozen=True, slots=True)
class Round:
    """One pass over the files. `cpu_s`: processor time of this process and its workers."""

    subject: str
    workers: int
    images: int
    wall_s: float
    cpu_s: float


class ScaleThenCrop:
    """What torchvision offers for the paper's augmentation, in one callable that workers can be sent."""

    def __init__(self) -> None:
        self._scales = [transforms.Resize(side) for side in range(LOW, HIGH + 1)]
        self._rest = transforms.Compose(
            [transforms.RandomCrop(CROP), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
        )

    def __call__(self, image: object) -> object:
        side = int(torch.randint(len(self._scales), ()))
        return self._rest(self._scales[side](image))


def write_folder(root: Path, images: int) -> float:
    """Write `images` JPEGs into ImageNet's folders below `root`; returns their mean size in bytes."""
    files = fit_jpegs()
    for number in range(images):
        path = root / "train" / f"n{number % CLASSES}" / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[number % len(files)])
    for label in range(CLASSES):
        path = root / "val" / f"n{label}" / "0.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[label])
    return statistics.mean(map(len, files))


def make_ours(root: Path, workers: int) -> Callable[[], int]:
    """One pass of the training loop's own source, up to the batch on the device."""
    recipe = load_recipe(
        "imagenet/resnet18",
        [*(f"data.{one}" for one in PROFILE), f"optimizer.batch={BATCH}", f"run.workers={workers}"],
    )
    task = open_task(recipe, root, Ranks(torch.device("cpu")), print)
    steps = task.source.images // BATCH

    def run() -> int:
        return sum(len(batch.targets) for batch in task.source.batches(0, steps))

    return run


def make_torchvision(root: Path, workers: int) -> Callable[[], int]:
    """The same with torchvision's ImageFolder and transforms, uint8 batches, nothing after them."""
    dataset = datasets.ImageFolder(str(root / "train"), ScaleThenCrop())

    def run() -> int:
        loader = DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, drop_last=True)
        return sum(len(targets) for _, targets in loader)

    return run


def measure(subject: str, workers: int, run: Callable[[], int]) -> Round:
    """One pass; workers have ended when it returns, so their processor time is counted."""
    cpu_s, started = _cpu_s(), time.perf_counter()
    images = run()
    return Round(subject, workers, images, time.perf_counter() - started, _cpu_s() - cpu_s)


def _cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, help="write the raw rounds here")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory() as folder:
        size_bytes = write_folder(Path(folder), asked.images)
        subjects = [
            (name, workers, make(Path(folder), workers))
            for workers in asked.workers
            for name, make in (("ours", make_ours), ("torchvision", make_torchvision))
        ]
        for number in range(asked.rounds + 1):
            passed = [measure(*subject) for subject in subjects]
            rounds += passed if number else []  # the first is a warm-up
    print(f"{'subject':12} {'workers':>7} {'images/s':>9} {'images/CPU s':>13}   range")
    for name, workers, _ in subjects:
        mine = [one for one in rounds if (one.subject, one.workers) == (name, workers)]
        per_s = statistics.median(one.images / one.wall_s for one in mine)
        per_cpu = sorted(one.images / one.cpu_s for one in mine)
        span = f"{per_cpu[0]:.0f} to {per_cpu[-1]:.0f}"
        print(f"{name:12} {workers:7} {per_s:9.0f} {statistics.median(per_cpu):13.0f}   {span}")
    if asked.out:
        run = {
            **describe_environment(Ranks(torch.device("cpu"))),
            "cores": os.cpu_count(),
            "load": os.getloadavg(),
            "mean_image_bytes": round(size_bytes),
        }
        raw = {"run": run, "rounds": [asdict(one) for one in rounds]}
        asked.out.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
