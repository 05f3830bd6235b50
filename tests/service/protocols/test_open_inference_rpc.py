"""inference.GRPCInferenceService where tritonclient does not reach."""

import asyncio
import struct
from typing import Any

import grpc
import pytest

from service.errors import Overloaded
from service.pb import open_inference_pb2 as oip
from service.pb import open_inference_pb2_grpc as oip_grpc
from service.types import ClassifyRequest
from tests.service.protocols.faults import PROBABILITIES, Served
from tests.service.protocols.telling import read_details, wait_for


def make_infer(**tensor: Any) -> oip.ModelInferRequest:
    given = {"name": "IMAGE", "datatype": "BYTES", "shape": [1]} | tensor
    return oip.ModelInferRequest(model_name="pets", inputs=[oip.ModelInferRequest.InferInputTensor(**given)])


def make_asking(outputs: list[oip.ModelInferRequest.InferRequestedOutputTensor]) -> oip.ModelInferRequest:
    request = make_infer(contents=oip.InferTensorContents(bytes_contents=[b"image"]))
    request.outputs.extend(outputs)
    return request


TEXT = oip.InferParameter(string_param="mine")


@pytest.mark.parametrize(
    "request_",
    [
        make_infer(contents=oip.InferTensorContents(bytes_contents=[b"image"])),
        make_infer(shape=[1, 1], contents=oip.InferTensorContents(bytes_contents=[b"image"])),
        make_infer(datatype="UINT8", shape=[1, 5], contents=oip.InferTensorContents(uint_contents=b"image")),
    ],
    ids=["bytes", "bytes with a column", "numbers"],
)
def test_tensors_may_be_in_contents(
    served: Served, channel: grpc.Channel, request_: oip.ModelInferRequest
) -> None:
    answer = oip_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request_)
    assert answer.raw_output_contents[0] == struct.pack("<3f", *PROBABILITIES)
    assert (answer.model_name, answer.model_version, list(answer.outputs[0].shape)) == ("pets", "3", [1, 3])
    assert served.classifier.asked[0].image == b"image"
    assert served.classifier.asked[0].options.model == "pets@3"


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (oip.ModelInferRequest(model_name="pets"), "inputs"),
        (make_infer(name="X"), "inputs"),
        (make_infer(datatype="FP32"), "datatype"),
        (make_infer(shape=[2], contents=oip.InferTensorContents(bytes_contents=[b"image"])), "shape"),
        (
            make_infer(datatype="UINT8", shape=[1, 1], contents=oip.InferTensorContents(uint_contents=[256])),
            "inputs",
        ),
        (make_infer(shape=[-1]), "shape"),
        (make_infer(shape=[2**62]), "shape"),
        (make_infer(parameters={"shared_memory_region": TEXT}), "shared_memory_region"),
        (make_asking([oip.ModelInferRequest.InferRequestedOutputTensor(name="FEATURES")]), "outputs"),
        (make_asking([oip.ModelInferRequest.InferRequestedOutputTensor(name="PROBS")] * 2), "outputs"),
        (
            make_asking(
                [
                    oip.ModelInferRequest.InferRequestedOutputTensor(
                        name="PROBS", parameters={"shared_memory_region": TEXT}
                    )
                ]
            ),
            "shared_memory_region",
        ),
    ],
    ids=[
        "no input",
        "another input",
        "another type",
        "fewer than the shape",
        "no byte",
        "negative",
        "far too many",
        "input in shared memory",
        "another output",
        "an output twice",
        "output in shared memory",
    ],
)
def test_a_wrong_tensor_is_an_invalid_argument(
    channel: grpc.Channel, request_: oip.ModelInferRequest, field: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        oip_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    violations = getattr(read_details(caught.value)["BadRequest"], "field_violations")  # noqa: B009
    assert [one.field for one in violations] == [field]


def make_two() -> oip.ModelInferRequest:
    return make_infer(shape=[2], contents=oip.InferTensorContents(bytes_contents=[b"first", b"second"]))


def test_the_second_image_of_a_request_waits_for_an_overload_to_end(
    served: Served, channel: grpc.Channel
) -> None:
    refusals = 0

    async def refuse_second(request: ClassifyRequest) -> None:
        nonlocal refusals
        if request.image == b"second" and refusals < 3:
            refusals += 1
            raise Overloaded("the predicted wait is too long", retry_after_s=0.01)

    served.classifier.on_classify = refuse_second
    answer = oip_grpc.GRPCInferenceServiceStub(channel).ModelInfer(make_two())
    assert (list(answer.outputs[0].shape), refusals) == ([2, 3], 3)


def test_the_first_error_of_a_request_ends_its_other_images(served: Served, channel: grpc.Channel) -> None:
    async def refuse_first(request: ClassifyRequest) -> None:
        if request.image == b"second":
            await asyncio.sleep(60)
        raise Overloaded("the predicted wait is too long", retry_after_s=1.5)

    served.classifier.on_classify = refuse_first
    with pytest.raises(grpc.RpcError) as caught:
        oip_grpc.GRPCInferenceServiceStub(channel).ModelInfer(make_two())
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.details() == "image 0: the predicted wait is too long"
    assert "RetryInfo" in read_details(caught.value)
    wait_for(lambda: served.classifier.cancelled == 1)


@pytest.mark.parametrize("raw", [b"", b"\1\0\0", b"\xff\xff\xff\xffimage", b"\0\0\0\0", b"\1\0\0\0a" * 2])
def test_raw_bytes_that_are_not_their_shape_are_an_invalid_argument(
    served: Served, channel: grpc.Channel, raw: bytes
) -> None:
    request = make_infer()
    request.raw_input_contents.append(raw)
    with pytest.raises(grpc.RpcError) as caught:
        oip_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not served.classifier.asked


def test_a_streamed_answer_says_that_it_is_the_final_one(channel: grpc.Channel) -> None:
    request = make_infer(contents=oip.InferTensorContents(bytes_contents=[b"image"]))
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    [told] = oip_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([request]))
    assert told.infer_response.parameters["triton_final_response"].bool_param
    assert told.infer_response.raw_output_contents
