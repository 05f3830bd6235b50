"""Ray Serve: one replica with @serve.batch; the image is the raw body."""

import os
import time

import ray
import torch
from ray import serve
from starlette.requests import Request

from bench.peers.job import Answer, ImageJob, read_arguments

MAX_BATCH = 16
BATCH_WAIT_S = 0.01


@serve.deployment(max_ongoing_requests=64, ray_actor_options={"num_cpus": 1})
class Classify:
    """One model version."""

    def __init__(self, version_dir: str) -> None:
        torch.set_num_threads(2)  # Ray sets one thread for an actor of one CPU; the machine has two
        self._job = ImageJob(version_dir)

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=BATCH_WAIT_S)  # type: ignore[untyped-decorator]
    async def classify(self, images: list[bytes]) -> list[Answer]:
        """A batch."""
        batch = torch.stack([self._job.decode(one) for one in images])
        return [self._job.answer(one) for one in self._job.predict(batch)]

    async def __call__(self, request: Request) -> Answer:
        """One request."""
        answer: Answer = await self.classify(await request.body())
        return answer


if __name__ == "__main__":
    version_dir, port = read_arguments()
    os.environ["RAY_AUTH_MODE"] = "disabled"  # it would write a token into the home folder
    ray.init(include_dashboard=False, log_to_driver=False, runtime_env=None)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(Classify.bind(version_dir))  # type: ignore[attr-defined]  # the decorator makes a Deployment
    while True:
        time.sleep(3600)
