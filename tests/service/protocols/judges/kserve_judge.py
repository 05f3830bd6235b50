"""KServe's SDK as it is: v1 and v2 over HTTP, v2 over gRPC. Arguments: HTTP and gRPC address, images."""

import asyncio
import base64
import sys
from pathlib import Path
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

HTTP, GRPC, *FILES = sys.argv[1:]
IMAGES = [Path(file).read_bytes() for file in FILES]
MODEL = "cifar10"


def make_request(**more: Any) -> InferRequest:
    given = InferInput("IMAGE", [len(IMAGES)], "BYTES")
    given.set_data_from_numpy(np.array(IMAGES, dtype=np.object_), binary_data=True)
    return InferRequest(model_name=MODEL, infer_inputs=[given], **more)


async def check_v1() -> np.ndarray[Any, Any]:
    client = InferenceRESTClient(RESTConfig(protocol="v1", timeout=60, retries=0))
    assert await client.is_model_ready(f"http://{HTTP}", MODEL)
    instances = [{"b64": base64.b64encode(image).decode()} for image in IMAGES]
    answer = await client.infer(f"http://{HTTP}", {"instances": instances}, model_name=MODEL)
    await client.close()
    assert isinstance(answer, dict)
    scores = np.array([one["probabilities"] for one in answer["predictions"]])
    assert [one["classes"] for one in answer["predictions"]] == scores.argmax(axis=1).tolist()
    return scores


async def check_v2(scores: np.ndarray[Any, Any]) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=60, retries=0))
    assert await client.is_server_live(f"http://{HTTP}")
    assert await client.is_server_ready(f"http://{HTTP}")
    assert await client.is_model_ready(f"http://{HTTP}", MODEL)
    assert not await client.is_model_ready(f"http://{HTTP}", "nobody")
    binary = [RequestedOutput("PROBS", {"binary_data": True})]
    for request in (make_request(), make_request(request_outputs=binary)):
        answer = await client.infer(f"http://{HTTP}", request, model_name=MODEL)
        assert np.allclose(answer.outputs[0].as_numpy(), scores, atol=1e-6)
    await client.close()


async def check_grpc(scores: np.ndarray[Any, Any]) -> None:
    async with InferenceGRPCClient(GRPC, retries=0) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready(MODEL)
        answer = await client.infer(make_request())
        assert np.allclose(answer.outputs[0].as_numpy(), scores, atol=1e-6)


async def main() -> None:
    scores = await check_v1()
    await check_v2(scores)
    await check_grpc(scores)


asyncio.run(main())
