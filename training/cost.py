"""What one image costs under each view policy, on one core: alone, and in batches.

encoded image -> decode -> views -> engine -> merged scores, on the calling thread, told by that thread's own
clock: the same on a busy machine as on an idle one, but for shared caches and the processor's frequency.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from models.decode import decode_image
from models.engines.base import Engine
from models.views.base import ViewContext
from training.data.served import OWN_FILES
from training.viewing import CHUNK, look_at

ROUNDS = 5  # interleaved, the median counts: processors change their frequency
SAMPLE = 50  # images


@dataclass(frozen=True, slots=True)
class Cost:
    """`ms`: of one image asked for alone, the mean over images. `images_per_s`: in batches."""

    ms: float
    images_per_s: float


def measure_costs(
    looks: Mapping[str, Sequence[ViewContext]], files: Sequence[bytes], engine: Engine
) -> dict[str, list[Cost]]:
    """The cost of each view policy in `looks`, under each of its contexts; `files` are encoded images."""
    seen: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for number in range(ROUNDS + 1):
        for tta, contexts in looks.items():
            for index, context in enumerate(contexts):
                spent = _time(tta, files, context, engine, 1), _time(tta, files, context, engine, CHUNK)
                if number > 0:  # the first warms up
                    seen.setdefault((tta, index), []).append(spent)
    return {
        tta: [_summarise(seen[tta, index]) for index in range(len(contexts))]
        for tta, contexts in looks.items()
    }


def _time(tta: str, files: Sequence[bytes], context: ViewContext, engine: Engine, together: int) -> float:
    """Seconds an image, `together` of them looked at at once."""
    started = time.thread_time()
    for at in range(0, len(files), together):
        images = [decode_image(file, OWN_FILES).pixels for file in files[at : at + together]]
        look_at(tta, images, context, engine)
    return (time.thread_time() - started) / len(files)


def _summarise(spent: Sequence[tuple[float, float]]) -> Cost:
    alone_s, together_s = (statistics.median(times) for times in zip(*spent, strict=True))
    return Cost(round(1000 * alone_s, 3), round(1 / together_s, 1))
