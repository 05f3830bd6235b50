"""LitServe: a LitAPI with batching; the image comes as an uploaded file."""

import litserve as ls  # type: ignore[import-not-found]  # only in the peers' environment
from fastapi import Request
from torch import Tensor

from bench.peers.job import Answer, ImageJob, read_arguments

MAX_BATCH = 16
BATCH_TIMEOUT_S = 0.01


class ImageApi(ls.LitAPI):  # type: ignore[misc]  # untyped here
    """See lightning.ai/docs/litserve: batching."""

    def __init__(self, version_dir: str) -> None:
        super().__init__(max_batch_size=MAX_BATCH, batch_timeout=BATCH_TIMEOUT_S)
        self._version_dir = version_dir

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        self._job = ImageJob(self._version_dir)

    def decode_request(self, request: Request) -> Tensor:
        """The form's file to a tensor; LitServe reads the form, and stacks tensors."""
        return self._job.decode(request["img"].file.read())

    def predict(self, batch: Tensor) -> Tensor:
        """A batch."""
        return self._job.predict(batch)

    def encode_response(self, output: Tensor) -> Answer:
        """One answer."""
        return self._job.answer(output)


if __name__ == "__main__":
    version_dir, port = read_arguments()
    server = ls.LitServer(ImageApi(version_dir), accelerator="cpu")
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)
