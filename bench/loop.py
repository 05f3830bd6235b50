"""What the project's own decoder and engine do in one process without queue, frame or protocol: the limit."""

import threading
import time
from dataclasses import dataclass

import numpy as np

from models.card import ModelCard
from models.decode import DecodeLimits, decode_image
from models.engines.base import Engine
from models.views import find_policy
from models.views.base import Classifier, ViewContext, ViewOutput


@dataclass(frozen=True, slots=True)
class Loop:
    """The bare loop: `engine` at `precision`, images through the centre policy."""

    card: ModelCard
    engine: Engine
    images: list[bytes]
    precision: str

    def run(self, lanes: int, threads: int, batch: int, seconds: float) -> float:
        """Images a second of `lanes` threads, each decoding `batch` images and computing them together."""
        until = time.monotonic() + seconds
        counts = [0] * lanes
        runners = [
            threading.Thread(target=self._run_lane, args=(lane, threads, batch, until, counts))
            for lane in range(lanes)
        ]
        started = time.monotonic()
        for runner in runners:
            runner.start()
        for runner in runners:
            runner.join()
        return sum(counts) / (time.monotonic() - started)

    def _run_lane(self, lane: int, threads: int, batch: int, until: float, counts: list[int]) -> None:
        policy, limits, context = find_policy("center"), DecodeLimits(), self._context()
        at = lane * batch
        while time.monotonic() < until:
            looks = []
            for index in range(at, at + batch):
                pixels = decode_image(self.images[index % len(self.images)], limits).pixels
                looks.append(policy.look(pixels, context))
            views = [next(look).views[0] for look in looks]
            output = self.engine.infer(np.stack(views), threads=threads)
            for look, logits in zip(looks, output.logits, strict=True):
                try:
                    look.send([ViewOutput(logits, None)])
                except StopIteration:
                    counts[lane] += 1
            at += batch

    def _context(self) -> ViewContext:
        fitted = self.card.policy("center")
        return ViewContext(
            self.card.preprocess,
            self.card.window,
            Classifier(*self.engine.classifier),
            fitted,
            fitted.merge,
            fitted.pool,
            4_000_000,
        )

    def run_engine(self, threads: int, seconds: float) -> float:
        """Views a second of the engine alone, one at a time."""
        look = find_policy("center").look(
            decode_image(self.images[0], DecodeLimits()).pixels, self._context()
        )
        view = next(look).views[0][None]  # [1, H, W, 3]
        count, began = 0, time.monotonic()
        while (took_s := time.monotonic() - began) < seconds:
            self.engine.infer(view, threads=threads)
            count += 1
        return count / took_s
