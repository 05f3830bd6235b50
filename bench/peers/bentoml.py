"""BentoML: adaptive batching of PIL images, uploaded as a file."""

import os
import sys

import bentoml  # type: ignore[import-not-found]  # only in the peers' environment
import torch
from PIL.Image import Image

from bench.peers.job import Answer, ImageJob, read_arguments

MAX_BATCH = 16
MAX_LATENCY_MS = 60_000  # what is late is answered all the same: no peer is charged for refusing
VERSION = "BENCH_VERSION_DIR"  # `bentoml serve` starts the service from an import, without arguments


@bentoml.service(traffic={"timeout": 60})
class Classify:
    """One model version."""

    def __init__(self) -> None:
        self._job = ImageJob(os.environ[VERSION])

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=MAX_LATENCY_MS)  # type: ignore[untyped-decorator]
    def classify(self, img: list[Image]) -> list[Answer]:
        """A batch."""
        batch = torch.stack([self._job.prepare(one) for one in img])
        return [self._job.answer(one) for one in self._job.predict(batch)]


if __name__ == "__main__":
    version_dir, port = read_arguments()
    os.environ |= {VERSION: version_dir, "BENTOML_DO_NOT_TRACK": "True"}
    serve = [sys.executable, "-m", "bentoml", "serve", "bench.peers.bentoml:Classify"]
    os.execv(sys.executable, [*serve, "--host", "127.0.0.1", "--port", str(port)])
