"""From JPEG bytes to a view, one core: `python -m bench.decode`. Ours against Pillow's usual way, in one run.

Subjects, each ending at the same uint8 [H, W, 3] view of the centre (224 of 256 px, or 32 of 32):

    pillow      Image.open, convert, resize the whole image, crop: what torchvision's transforms do
    pillow box  Pillow's decoder, then our resize of the part that the view shows
    ours        models.decode and models.views, as the worker runs them

Rates are per second of CPU time, since others may be using the machine; rounds are interleaved, with a fixed
piece of arithmetic as a probe of what a CPU second is worth, and ratios are of the same round. `--out FILE`
writes the raw rounds as JSON.
"""

import argparse
import io
import itertools
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from models.card import Preprocess
from models.decode import DecodeLimits, decode_image
from models.preprocess import cut_views, plan_center, resized_size

PHOTOGRAPHS = sorted((Path(__file__).resolve().parent.parent / "tests" / "data" / "photos").glob("*.jpg"))
ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
LIMITS = DecodeLimits()

Decode = Callable[[bytes, Preprocess], np.ndarray]


@dataclass(frozen=True, slots=True)
class Workload:
    """`images`: JPEG files of about `target_bytes`; `preprocess`: what becomes of them."""

    name: str
    target_bytes: int
    preprocess: Preprocess
    images: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Round:
    """Images a CPU second of one subject in one round; for the probe, its runs."""

    workload: str
    subject: str
    rate_per_s: float


def make_workloads() -> list[Workload]:
    large = fit_jpegs()
    small = tuple(_fit_jpeg(path, 32, 1_000) for path in PHOTOGRAPHS)
    return [
        Workload("100 kB -> 224", 100_000, Preprocess(256, 224, ZERO, ONE), large),
        Workload("1 kB -> 32", 1_000, Preprocess(32, 32, ZERO, ONE), small),
    ]


def fit_jpegs() -> tuple[bytes, ...]:
    """Ten photographs as JPEG files of 640 x 480 pixels and about 100 kB."""
    return tuple(_fit_jpeg(path, 640, 100_000) for path in PHOTOGRAPHS[:10])


def _fit_jpeg(path: Path, side: int, target_bytes: int) -> bytes:
    """The photograph at `side` pixels, in the quality whose file is nearest to `target_bytes`."""
    picture = Image.open(path).convert("RGB")
    width, height = (side, side) if side == 32 else (side, side * 3 // 4)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    files = []
    for quality in range(30, 100, 3):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        files.append(file.getvalue())
    return min(files, key=lambda data: abs(len(data) - target_bytes))


def decode_by_pillow(data: bytes, preprocess: Preprocess) -> np.ndarray:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    height, width = resized_size(image.height, image.width, preprocess.resize_px)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    crop = plan_center(image.height, image.width, preprocess).crops[0]
    return np.asarray(image.crop((crop.left, crop.top, crop.right, crop.bottom)))


def decode_by_pillow_box(data: bytes, preprocess: Preprocess) -> np.ndarray:
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    plan = plan_center(pixels.shape[0], pixels.shape[1], preprocess)
    return cut_views(pixels, plan, preprocess.interpolation)[0]


def decode_by_ours(data: bytes, preprocess: Preprocess) -> np.ndarray:
    pixels = decode_image(data, LIMITS).pixels
    plan = plan_center(pixels.shape[0], pixels.shape[1], preprocess)
    return cut_views(pixels, plan, preprocess.interpolation)[0]


SUBJECTS: dict[str, Decode] = {
    "pillow": decode_by_pillow,
    "pillow box": decode_by_pillow_box,
    "ours": decode_by_ours,
}


def probe(rows: np.ndarray) -> None:
    """The fixed arithmetic: three passes of one operation each over 256 x 1024 numbers, on one core."""
    np.sqrt(rows * rows + rows)


def measure(call: Callable[[], object], seconds: float) -> float:
    """Calls in a second of CPU time."""
    calls, started = 0, time.process_time()
    while time.process_time() < started + seconds:
        call()
        calls += 1
    return calls / (time.process_time() - started)


def _decode_next(decode: Decode, images: Iterator[bytes], preprocess: Preprocess) -> None:
    decode(next(images), preprocess)


def run_round(workload: Workload, seconds: float) -> list[Round]:
    rows = np.random.default_rng(0).random((256, 1024), np.float32)
    rounds = [Round(workload.name, "probe", measure(partial(probe, rows), seconds / 4))]
    for name, decode in SUBJECTS.items():
        images = itertools.cycle(workload.images)
        rate = measure(partial(_decode_next, decode, images, workload.preprocess), seconds)
        rounds.append(Round(workload.name, name, rate))
    return rounds


def report(rounds: list[Round], workloads: list[Workload]) -> None:
    print(f"{'workload':15} {'subject':11} {'median /s':>9} {'range':>13}  of pillow")
    for workload in workloads:
        rates = {
            subject: [
                one.rate_per_s for one in rounds if (one.workload, one.subject) == (workload.name, subject)
            ]
            for subject in ("probe", *SUBJECTS)
        }
        for subject, mine in rates.items():
            ratio = statistics.median(a / b for a, b in zip(mine, rates["pillow"], strict=True))
            relative = "" if subject == "probe" else f"{ratio:9.2f}"
            span = f"{min(mine):.0f}-{max(mine):.0f}"
            print(f"{workload.name:15} {subject:11} {statistics.median(mine):9.0f} {span:>13}  {relative}")


def describe_run(workloads: list[Workload], seconds: float) -> dict[str, object]:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    sizes = {one.name: sum(map(len, one.images)) // len(one.images) for one in workloads}
    return {
        "commit": commit.stdout.strip(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "pillow": PIL.__version__,
        "seconds_per_measurement": seconds,
        "mean_image_bytes": sizes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement")
    parser.add_argument("--out", type=Path, help="write the raw rounds here")
    options = parser.parse_args()
    workloads = make_workloads()
    for workload in workloads:  # warm-up
        run_round(workload, 0.2)
    rounds = [
        one
        for _ in range(options.rounds)
        for workload in workloads
        for one in run_round(workload, options.seconds)
    ]
    report(rounds, workloads)
    if options.out:
        raw = {"run": describe_run(workloads, options.seconds), "rounds": [asdict(one) for one in rounds]}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
