"""mosec: decoding in processes of their own, then one that computes batches; the image is the raw body."""

import os
import sys
from typing import Any

import numpy as np
import torch
from mosec import Server, Worker  # type: ignore[import-not-found]  # only in the peers' environment
from numpy.typing import NDArray

from bench.peers.job import Answer, ImageJob, Preparer, read_arguments

MAX_BATCH = 16
MAX_WAIT_MS = 10
DECODERS = 2
VERSION = "BENCH_VERSION_DIR"  # mosec makes the workers itself, in processes of their own, without arguments


class Preprocess(Worker):  # type: ignore[misc]  # untyped here
    """Decodes one image at a time."""

    def __init__(self) -> None:
        self._preparer = Preparer(os.environ[VERSION])

    def deserialize(self, data: bytes) -> Any:
        """The body as it came."""
        return data

    def forward(self, data: bytes) -> Any:
        """An image to a tensor."""
        return self._preparer.decode(data).numpy()


class Inference(Worker):  # type: ignore[misc]  # untyped here
    """Computes what has piled up."""

    def __init__(self) -> None:
        self._job = ImageJob(os.environ[VERSION])

    def forward(self, data: list[NDArray[np.float32]]) -> list[Answer]:
        """A batch of [3, H, W]."""
        batch = torch.from_numpy(np.stack(data))
        return [self._job.answer(one) for one in self._job.predict(batch)]


if __name__ == "__main__":
    os.environ[VERSION], port = read_arguments()
    sys.argv = [sys.argv[0], "--address", "127.0.0.1", "--port", str(port)]  # mosec reads them itself
    server = Server()
    server.append_worker(Preprocess, num=DECODERS)
    server.append_worker(Inference, num=1, max_batch_size=MAX_BATCH, max_wait_time=MAX_WAIT_MS)
    server.run()
