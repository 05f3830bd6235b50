"""tritonclient as it is: HTTP and gRPC, blocking and asyncio. Arguments: HTTP and gRPC address, images."""

import asyncio
import queue
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as tgrpc
import tritonclient.grpc.aio as tgrpc_aio
import tritonclient.http as thttp
import tritonclient.http.aio as thttp_aio
from google.protobuf import json_format
from tritonclient.utils import InferenceServerException

HTTP, GRPC, *FILES = sys.argv[1:]
IMAGES = [Path(file).read_bytes() for file in FILES]
MODEL = "cifar10"


def make_inputs(module: Any, images: list[bytes], *, has_column: bool) -> list[Any]:
    shape = [len(images), 1] if has_column else [len(images)]
    given = module.InferInput("IMAGE", shape, "BYTES")
    given.set_data_from_numpy(np.array(images, dtype=np.object_).reshape(shape))
    return [given]


def make_padded(module: Any, images: list[bytes]) -> list[Any]:
    rows = np.zeros((len(images), max(map(len, images)) + 7), np.uint8)
    for row, image in zip(rows, images, strict=True):
        row[: len(image)] = np.frombuffer(image, np.uint8)
    given = module.InferInput("IMAGE", list(rows.shape), "UINT8")
    given.set_data_from_numpy(rows)
    return [given]


def check_server(client: Any, *, is_http: bool) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert not client.is_model_ready("nobody")
    assert not client.is_model_ready(MODEL, "77")
    more: dict[str, bool] = {} if is_http else {"as_json": True}
    assert client.get_server_metadata(**more)["name"] == "resnet-serve"
    metadata = client.get_model_metadata(MODEL, **more)
    version = metadata["versions"][0]
    assert client.is_model_ready(MODEL, version)
    assert metadata["inputs"][0]["name"] == "IMAGE"
    config = client.get_model_config(MODEL, version, **more)
    config = config if is_http else config["config"]
    assert config["input"][0]["data_type"] == "TYPE_STRING"
    index = client.get_model_repository_index(**more)
    assert MODEL in [one["name"] for one in (index if is_http else index["models"])]
    [statistics] = client.get_inference_statistics(MODEL, version, **more)["model_stats"]
    assert int(statistics["inference_count"]) == int(statistics["inference_stats"]["success"]["count"])
    sizes = statistics["batch_stats"]
    assert sum(int(one["compute_infer"]["count"]) for one in sizes) == int(statistics["execution_count"])
    assert all(int(one["compute_infer"]["ns"]) > 0 for one in sizes)
    assert client.get_inference_statistics(**more)["model_stats"]


def check_infer(client: Any, module: Any, *, is_http: bool) -> np.ndarray[Any, Any]:
    flat = client.infer(MODEL, make_inputs(module, IMAGES, has_column=False), request_id="one")
    scores: np.ndarray[Any, Any] = flat.as_numpy("PROBS")
    assert scores.dtype == np.float32
    assert scores.shape[0] == len(IMAGES)
    assert np.allclose(scores.sum(axis=1), 1.0, atol=1e-4)
    for inputs in (make_inputs(module, IMAGES, has_column=True), make_padded(module, IMAGES)):
        again = client.infer(MODEL, inputs, priority=1, timeout=20_000_000, parameters={"tta": "center"})
        assert np.allclose(again.as_numpy("PROBS"), scores, atol=1e-6)
    told = client.infer(MODEL, inputs, parameters={"tta": "mirror"}).get_response()
    told = told["parameters"] if is_http else json_format.MessageToDict(told)["parameters"]
    views = 2 * len(IMAGES)
    assert told["tta_used"] == ("mirror" if is_http else {"stringParam": "mirror"}), told
    assert told["tta_views"] == (views if is_http else {"int64Param": str(views)}), told
    inputs = make_inputs(module, IMAGES, has_column=True)
    ranked = client.infer(MODEL, inputs, outputs=[module.InferRequestedOutput("PROBS", class_count=2)])
    for row, best in zip(scores, ranked.as_numpy("PROBS"), strict=True):
        value, index, label = best[0].decode().split(":", 2)
        assert int(index) == int(row.argmax())
        assert abs(float(value) - row.max()) < 1e-5
        assert label
    compressions = ("gzip", "deflate")
    name = "request_compression_algorithm" if is_http else "compression_algorithm"
    for compression in compressions:
        again = client.infer(MODEL, inputs, **{name: compression})
        assert np.allclose(again.as_numpy("PROBS"), scores, atol=1e-6)
    for wrong in ({"model_name": "nobody"}, {"model_name": MODEL, "parameters": {"tta": "no_such_policy"}}):
        assert find_refusal(client, inputs, wrong), wrong
    return scores


def find_refusal(client: Any, inputs: list[Any], asked: dict[str, Any]) -> str | None:
    try:
        client.infer(inputs=inputs, **asked)
    except InferenceServerException as error:
        return str(error.message())
    return None


def check_stream(client: Any, scores: np.ndarray[Any, Any]) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number, image in enumerate(IMAGES):
        inputs = make_inputs(tgrpc, [image], has_column=False)
        client.async_stream_infer(MODEL, inputs, request_id=str(number))
    client.async_stream_infer(MODEL, make_inputs(tgrpc, [b"no image"], has_column=False))
    for number in range(len(IMAGES)):
        result, error = answers.get(timeout=30)
        assert error is None, error
        assert result.get_response().id == str(number)
        assert np.allclose(result.as_numpy("PROBS")[0], scores[number], atol=1e-6)
    result, error = answers.get(timeout=30)
    assert result is None
    assert "image" in str(error), error
    client.stop_stream()


async def check_aio(scores: np.ndarray[Any, Any]) -> None:
    async with thttp_aio.InferenceServerClient(HTTP) as client:
        assert await client.is_server_ready()
        answer = await client.infer(MODEL, make_inputs(thttp, IMAGES, has_column=False))
        assert np.allclose(answer.as_numpy("PROBS"), scores, atol=1e-6)
    async with tgrpc_aio.InferenceServerClient(GRPC) as client:
        assert await client.is_server_ready()
        answer = await client.infer(MODEL, make_inputs(tgrpc, IMAGES, has_column=False))
        assert np.allclose(answer.as_numpy("PROBS"), scores, atol=1e-6)


def main() -> None:
    http, grpc = thttp.InferenceServerClient(HTTP), tgrpc.InferenceServerClient(GRPC)
    scores = check_infer(http, thttp, is_http=True)
    assert np.allclose(check_infer(grpc, tgrpc, is_http=False), scores, atol=1e-6)
    check_server(http, is_http=True)
    check_server(grpc, is_http=False)
    check_stream(grpc, scores)
    asyncio.run(check_aio(scores))
    http.close()
    grpc.close()


main()
