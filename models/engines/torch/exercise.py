"""Run all of the torch engine on one device and print what it did: the check of the CUDA module.

    python -m models.engines.torch.exercise models/zoo/cifar10/1 --device cuda:0

For each precision: the golden self-test, padded batches against whole ones, several threads at once, a size
without a bucket, and images per second against a bare loop of the same compiled network. The first thing
that is wrong ends it with exit code 1.
"""

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.engines.base import Engine, EngineError, Placement
from models.engines.torch import DTYPES, ServingForm, list_precisions, load_network, open_engine
from models.repository import ModelVersion, check_version
from models.selftest import SelfTestFailed, run_selftest

BATCH = 64
SECONDS = 5.0


class Wrong(Exception):
    """The engine did something it must not; the message says what."""


def main(arguments: list[str]) -> int:
    """Exercise every precision of one version; returns the exit code."""
    parser = argparse.ArgumentParser("python -m models.engines.torch.exercise")
    parser.add_argument("version", type=Path, help="the directory of a model version")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long each rate is measured")
    asked = parser.parse_args(arguments)
    version = check_version(asked.version.resolve())
    say(f"{version.reference} {version.card.architecture} on {describe_device(asked.device)}")
    try:
        for precision in list_precisions(version, asked.device):
            exercise(version, Placement(asked.device, precision), asked.seconds)
    except (EngineError, SelfTestFailed, Wrong) as err:
        say(f"WRONG: {err}")
        return 1
    return 0


def exercise(version: ModelVersion, placement: Placement, seconds: float) -> None:
    """All checks and both rates at one precision; raises Wrong, EngineError, SelfTestFailed."""
    began = time.perf_counter()
    engine = open_engine(version, placement)
    say(f"{placement.precision}: opened in {time.perf_counter() - began:.1f} s")
    test = run_selftest(version.card, engine, placement.precision)
    say(f"  golden images: {test.images} within {test.difference:.3g}")
    allowed = version.card.tolerance[placement.precision]
    side = version.card.preprocess.crop_px
    views = np.random.default_rng(0).integers(0, 256, (BATCH, side, side, 3), dtype=np.uint8)
    check_batches(engine, views, allowed)
    check_threads(engine, views, allowed)
    check_other_size(engine, side)
    measure(version, placement, engine, views, seconds)
    engine.close()


def check_batches(engine: Engine, views: NDArray[np.uint8], allowed: float) -> None:
    """A view's logits and features are the same, within tolerance, in every batch."""
    whole = engine.infer(views, features=True)
    assert whole.features is not None
    for count in (1, 2, 3, 7, 8, 9, 33, BATCH):
        part = engine.infer(views[:count], features=True)
        assert part.features is not None
        refuse_difference(f"batch of {count}", part.logits, whole.logits[:count], allowed)
        refuse_difference(f"features of {count}", part.features, whole.features[:count], allowed)
    say("  batches of 1 to 64 agree")


def check_threads(engine: Engine, views: NDArray[np.uint8], allowed: float) -> None:
    """Eight threads at once get what each gets alone: no buffer is shared between batches in flight."""
    batches = [np.ascontiguousarray(views[start : start + 5]) for start in range(8)] * 8
    alone = [engine.infer(batch).logits for batch in batches[:8]]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda batch: engine.infer(batch).logits, batches))
    for number, logits in enumerate(together):
        refuse_difference("concurrent batch", logits, alone[number % 8], allowed)
    say("  8 threads agree")


def check_other_size(engine: Engine, side: int) -> None:
    """A size without a bucket is computed as well."""
    logits = engine.infer(np.zeros((2, side + 13, side * 2, 3), np.uint8)).logits
    if not np.isfinite(logits).all() or not np.array_equal(logits[0], logits[1]):
        raise Wrong("two equal views of another size got different or infinite logits")
    say("  another size agrees")


def refuse_difference(
    what: str, got: NDArray[np.float32], expected: NDArray[np.float32], allowed: float
) -> None:
    """Raise Wrong where the largest difference, relative as in the self-test, exceeds `allowed`."""
    difference = float(np.abs(got - expected).max() / max(1.0, np.abs(expected).max()))
    if not difference <= allowed:
        raise Wrong(f"{what} differs by {difference:.3g}, allowed is {allowed:.3g}")


def measure(
    version: ModelVersion, placement: Placement, engine: Engine, views: NDArray[np.uint8], seconds: float
) -> None:
    """Images per second with copies, two threads feeding; and the bare compiled network without copies."""
    device = torch.device(placement.device)
    form = ServingForm(load_network(version), version.card.preprocess, DTYPES[placement.precision]).to(device)
    compiled = torch.compile(form, dynamic=False) if device.type == "cuda" else form
    resident = torch.from_numpy(views).to(device)

    def run_bare() -> None:
        with torch.inference_mode():
            compiled(resident)

    bare = count_rate(run_bare, 1, seconds, device) * BATCH
    served = count_rate(lambda: engine.infer(views), 2, seconds, device) * BATCH
    say(f"  {served:,.0f} images/s; bare compiled network {bare:,.0f}; ratio {served / bare:.2f}")


def count_rate(call: Callable[[], object], threads: int, seconds: float, device: torch.device) -> float:
    """Calls per second of `call` from `threads` threads, after three calls to warm up."""
    for _ in range(3):
        call()
    synchronize(device)
    deadline = time.perf_counter() + seconds

    def repeat(_: int) -> int:
        count = 0
        while time.perf_counter() < deadline:
            call()
            count += 1
            if count % 16 == 0:
                synchronize(device)
        return count

    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        calls = sum(pool.map(repeat, range(threads)))
    synchronize(device)
    return calls / (time.perf_counter() - began)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def describe_device(device: str) -> str:
    """The device's name and torch's version."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"
    return f"{name}, torch {torch.__version__}"


def say(line: str) -> None:
    """One line of the log."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
