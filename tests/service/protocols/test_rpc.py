"""The gRPC port through real clients: answers, errors, deadlines, cancelling, streams, health."""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from service.errors import Draining, Overloaded, ServiceError, list_errors
from service.pb import classifier_pb2 as pb
from service.pb import classifier_pb2_grpc as pb_grpc
from service.protocols.rpc_classifier import STREAM_WINDOW
from service.protocols.status import STATUS
from service.types import ClassifyOptions, ClassifyRequest
from tests.service.protocols.faults import BROKEN, LABELS, Served
from tests.service.protocols.telling import count_requests, read_details, settle, wait_for


def test_an_image_gets_the_answer_of_the_classifier(served: Served, stub: pb_grpc.ClassifierStub) -> None:
    request = pb.ClassifyRequest(image=b"image", top_k=2)
    answer, call = stub.Classify.with_call(request, metadata=(("x-request-id", "mine-1"),))
    assert [(one.index, one.label, one.probability) for one in answer.predictions] == [
        (1, "dog", 0.625),
        (0, "cat", 0.25),
    ]
    assert (answer.request_id, answer.model.name, answer.model.version) == ("mine-1", "pets", 3)
    assert (answer.tta.asked, answer.tta.used, answer.tta.views) == ("center", "center", 1)
    assert answer.timings_ms.infer == 0.3
    assert ("x-request-id", "mine-1") in list(call.trailing_metadata() or ())
    assert served.classifier.held_bytes == 0


def test_every_field_reaches_the_classifier(served: Served, stub: pb_grpc.ClassifierStub) -> None:
    request = pb.ClassifyRequest(
        image=b"image",
        model="pets@3",
        top_k=3,
        tta="multi_scale",
        scales=[224, 256],
        merge="logits",
        pool="global",
        map=True,
        logits=True,
        precision="int8",
        priority="bulk",
    )
    setattr(request, "class", 0)
    stub.Classify(request)
    [asked] = served.classifier.asked
    assert asked.options == ClassifyOptions(
        "pets@3", 3, "multi_scale", (224, 256), "logits", "global", True, 0, True, "int8", "bulk"
    )
    assert asked.protocol == "grpc"


@pytest.mark.parametrize("error", list_errors(), ids=lambda error: error.slug)
def test_an_error_has_its_code_and_its_details(
    served: Served, stub: pb_grpc.ClassifierStub, error: type[ServiceError]
) -> None:
    async def fail(_: ClassifyRequest) -> None:
        failure = error("what is wrong")
        failure.retry_after_s = 2.5
        raise failure

    served.classifier.on_classify = fail
    with pytest.raises(grpc.RpcError) as caught:
        stub.Classify(pb.ClassifyRequest(image=b"image"))
    assert caught.value.code().name == STATUS[error.slug].grpc
    assert caught.value.details() == "what is wrong"
    details = read_details(caught.value)
    assert getattr(details["ErrorInfo"], "reason") == error.slug  # noqa: B009
    assert getattr(details["RetryInfo"], "retry_delay").ToMilliseconds() == 2500  # noqa: B009


def test_unavailable_is_for_draining_alone() -> None:
    assert [slug for slug, status in STATUS.items() if status.grpc == "UNAVAILABLE"] == [Draining.slug]


def make_with_class(index: int) -> pb.ClassifyRequest:
    request = pb.ClassifyRequest(image=b"image")
    setattr(request, "class", index)  # a word of Python's own
    return request


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.ClassifyRequest(), "image"),
        (pb.ClassifyRequest(image=b"image", top_k=0), "top_k"),
        (pb.ClassifyRequest(image=b"image", priority="urgent"), "priority"),
        (make_with_class(1), "class"),
    ],
    ids=["no image", "top_k of zero", "unknown priority", "class without map"],
)
def test_a_field_at_fault_is_named(
    stub: pb_grpc.ClassifierStub, request_: pb.ClassifyRequest, field: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Classify(request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    violations = getattr(read_details(caught.value)["BadRequest"], "field_violations")  # noqa: B009
    assert [one.field for one in violations] == [field]


def test_an_unforeseen_error_tells_only_the_request_id(
    served: Served, stub: pb_grpc.ClassifierStub, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: ClassifyRequest) -> None:
        raise RuntimeError("secret path")

    served.classifier.on_classify = fail
    with pytest.raises(grpc.RpcError) as caught:
        stub.Classify(pb.ClassifyRequest(image=b"image"), metadata=(("x-request-id", "mine-2"),))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details() == "internal error, request id mine-2"
    assert [record.message for record in caplog.records] == ["call failed"]


def test_an_image_over_the_limit_is_refused_by_us_and_a_far_larger_one_by_the_channel(
    stub: pb_grpc.ClassifierStub,
) -> None:
    for size, code in ((100_001, "INVALID_ARGUMENT"), (200_000, "RESOURCE_EXHAUSTED")):
        with pytest.raises(grpc.RpcError) as caught:
            stub.Classify(pb.ClassifyRequest(image=bytes(size)))
        assert caught.value.code().name == code


def test_a_deadline_reaches_the_classifier_and_ends_the_work(
    served: Served, stub: pb_grpc.ClassifierStub
) -> None:
    async def wait(_: ClassifyRequest) -> None:
        await asyncio.sleep(60)

    served.classifier.on_classify = wait
    before = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        stub.Classify(pb.ClassifyRequest(image=b"image"), timeout=0.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    [asked] = served.classifier.asked
    assert asked.deadline <= before + 0.6
    wait_for(lambda: served.classifier.cancelled == 1)


def test_a_cancelled_call_cancels_the_work_and_is_counted_as_aborted(
    served: Served, stub: pb_grpc.ClassifierStub
) -> None:
    async def wait(_: ClassifyRequest) -> None:
        await asyncio.sleep(60)

    served.classifier.on_classify = wait
    call = stub.Classify.future(pb.ClassifyRequest(image=b"image"))
    wait_for(lambda: served.classifier.under_way == 1)
    call.cancel()
    wait_for(lambda: served.classifier.cancelled == 1)
    wait_for(lambda: count_requests(served, "/resnet.v1.Classifier/Classify", "aborted") == 1)
    assert served.classifier.held_bytes == 0


def test_calls_are_counted_by_route_and_code(served: Served, stub: pb_grpc.ClassifierStub) -> None:
    stub.Classify(pb.ClassifyRequest(image=b"image"))
    with pytest.raises(grpc.RpcError):
        stub.Classify(pb.ClassifyRequest(image=b"image", model="nobody"))
    wait_for(lambda: count_requests(served, "/resnet.v1.Classifier/Classify", "OK") == 1)
    wait_for(lambda: count_requests(served, "/resnet.v1.Classifier/Classify", "NOT_FOUND") == 1)


def test_list_models_tells_what_the_card_says(stub: pb_grpc.ClassifierStub) -> None:
    [model] = stub.ListModels(pb.ListModelsRequest()).models
    assert json_format.MessageToDict(model, preserving_proto_field_name=True) == {
        "name": "pets",
        "version": "3",
        "digest": "d" * 64,
        "state": "ready",
        "ready": True,
        "default": True,
        "default_version": True,
        "workers": 1,
        "precisions": ["fp32"],
        "architecture": "resnet20",
        "labels": list(LABELS),
        "input": {"resize_px": 32, "crop_px": 32, "interpolation": "bilinear"},
        "tta": {
            "default": "center",
            "policies": {
                name: {"merge": "probabilities", "pool": "window", "temperature": 1.0}
                for name in ("center", "ten_crop")
            },
            "cost_ms": {"center": 1.0, "ten_crop": 9.5},
        },
        "metrics": [
            {
                "dataset": "pets",
                "split": "test",
                "images": 300,
                "tta": "center",
                "top1_error": 8.25,
                "precision": "fp32",
            }
        ],
        "provenance": {"kind": "trained", "created": "2026-01-01T00:00:00Z"},
        "refused": [{"version": "4", "reason": "NaN in conv1.weight"}],
    }


def make_stream(images: list[bytes]) -> Iterator[pb.ClassifyStreamRequest]:
    for number, image in enumerate(images):
        yield pb.ClassifyStreamRequest(id=f"n{number}", request=pb.ClassifyRequest(image=image, top_k=1))


def test_a_stream_is_answered_in_order_and_outlives_a_bad_image(
    served: Served, stub: pb_grpc.ClassifierStub
) -> None:
    async def reverse(request: ClassifyRequest) -> None:
        await asyncio.sleep(0.002 * (10 - len(served.classifier.asked) % 10))

    served.classifier.on_classify = reverse
    images = [b"image"] * 50
    images[7] = BROKEN
    images[20] = b""
    answers = list(stub.ClassifyStream(make_stream(images)))
    assert [one.index for one in answers] == list(range(50))
    assert [one.id for one in answers] == [f"n{number}" for number in range(50)]
    wrong = {one.index: one.error for one in answers if one.WhichOneof("outcome") == "error"}
    assert {index: (one.type, one.code) for index, one in wrong.items()} == {
        7: ("broken-image", 3),
        20: ("bad-request", 3),
    }
    assert len({one.response.request_id for one in answers if one.index not in wrong}) == 48


def test_a_client_that_does_not_read_is_stopped(served: Served, stub: pb_grpc.ClassifierStub) -> None:
    def send() -> Iterator[pb.ClassifyStreamRequest]:
        for request in make_stream([b"image"] * 4_000):
            request.request.logits = True
            yield request

    answers = stub.ClassifyStream(send())
    wait_for(lambda: len(served.classifier.asked) >= STREAM_WINDOW)
    assert settle(lambda: len(served.classifier.asked)) < 4_000
    assert sum(1 for _ in answers) == 4_000


def test_an_overloaded_server_slows_a_stream_down(served: Served, stub: pb_grpc.ClassifierStub) -> None:
    refusals = 0

    async def refuse_at_first(_: ClassifyRequest) -> None:
        nonlocal refusals
        if refusals < 5:
            refusals += 1
            raise Overloaded("the predicted wait is too long", retry_after_s=0.01)

    served.classifier.on_classify = refuse_at_first
    answers = list(stub.ClassifyStream(make_stream([b"image"] * 20)))
    assert [one.WhichOneof("outcome") for one in answers] == ["response"] * 20
    assert refusals == 5


def test_draining_ends_a_stream_after_what_was_answered(served: Served, stub: pb_grpc.ClassifierStub) -> None:
    async def drain(_: ClassifyRequest) -> None:
        if len(served.classifier.asked) > 3:
            raise Draining("this server is stopping, ask another one", retry_after_s=1.0)

    served.classifier.on_classify = drain
    answers = stub.ClassifyStream(make_stream([b"image"] * 10))
    got: list[pb.ClassifyStreamResponse] = []
    with pytest.raises(grpc.RpcError) as caught:
        got.extend(answers)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_stream_its_client_leaves_ends_its_images(served: Served, stub: pb_grpc.ClassifierStub) -> None:
    async def wait(_: ClassifyRequest) -> None:
        await asyncio.sleep(60)

    served.classifier.on_classify = wait
    answers = stub.ClassifyStream(make_stream([b"image"] * 200))
    wait_for(lambda: served.classifier.under_way == STREAM_WINDOW)
    answers.cancel()
    wait_for(lambda: served.classifier.under_way == 0)
    assert served.classifier.cancelled == STREAM_WINDOW
    assert served.classifier.held_bytes == 0


def make_health_stub(channel: grpc.Channel) -> Any:
    """Any: the stub's calls have no types."""
    return health_pb2_grpc.HealthStub(channel)


def test_health_follows_readiness_for_every_watcher(served: Served, channel: grpc.Channel) -> None:
    stub = make_health_stub(channel)
    serving, not_serving = (
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING,
    )
    assert stub.Check(health_pb2.HealthCheckRequest(service="resnet.v1.Classifier")).status == serving
    first, second = (stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(2))
    assert [next(first).status, next(second).status] == [serving, serving]
    first.cancel()
    served.thread.loop.call_soon_threadsafe(served.classifier.set_ready, False)
    assert next(second).status == not_serving
    served.thread.loop.call_soon_threadsafe(served.classifier.set_ready, True)
    assert next(second).status == serving
    second.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_lists_every_service_with_its_messages(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {"resnet.v1.Classifier", "grpc.health.v1.Health"} <= set(database.get_services())
    proto = database.FindFileContainingSymbol("resnet.v1.Classifier")
    assert proto.name == "resnet/v1/classifier.proto"


def test_drain_finishes_what_was_accepted_and_does_not_wait_for_watchers(
    served: Served, channel: grpc.Channel, stub: pb_grpc.ClassifierStub
) -> None:
    may_end = threading.Event()

    async def wait(_: ClassifyRequest) -> None:
        await asyncio.get_running_loop().run_in_executor(None, may_end.wait)

    served.classifier.on_classify = wait
    watching = make_health_stub(channel).Watch(health_pb2.HealthCheckRequest())
    next(watching)
    call = stub.Classify.future(pb.ClassifyRequest(image=b"image"))
    wait_for(lambda: served.classifier.under_way == 1)
    draining = threading.Thread(target=served.drain, args=(60.0,))
    draining.start()
    may_end.set()
    assert call.result(timeout=20).predictions[0].label == "dog"
    draining.join(20)
    assert not draining.is_alive()


def test_a_compressed_message_is_bounded_by_its_inflated_size(served: Served) -> None:
    with grpc.insecure_channel(served.address, compression=grpc.Compression.Gzip) as channel:
        stub = pb_grpc.ClassifierStub(channel)
        assert stub.Classify(pb.ClassifyRequest(image=bytes(90_000))).predictions
        with pytest.raises(grpc.RpcError) as caught:
            stub.Classify(pb.ClassifyRequest(image=bytes(50_000_000)))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def call_raw(method: Any, sent: Any) -> Any:
    """Any: bytes without a type of message."""
    return method(sent)


UNREADABLE = b"\xff\xff\xff\xff"
GOOD = pb.ClassifyStreamRequest(request=pb.ClassifyRequest(image=b"image")).SerializeToString()


@pytest.mark.parametrize(
    "method",
    [
        "/resnet.v1.Classifier/Classify",
        "/inference.GRPCInferenceService/ModelInfer",
        "/grpc.health.v1.Health/Check",
    ],
)
def test_bytes_that_are_no_message_are_the_callers_fault(
    served: Served, channel: grpc.Channel, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call_raw(channel.unary_unary(method), UNREADABLE)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "ErrorInfo" in read_details(caught.value)
    assert not caplog.records
    wait_for(lambda: count_requests(served, method, "INVALID_ARGUMENT") == 1)


@pytest.mark.parametrize(
    ("method", "sent", "answers"),
    [
        ("/resnet.v1.Classifier/ClassifyStream", [GOOD, UNREADABLE, GOOD], 1),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", [UNREADABLE], 0),
    ],
    ids=["images", "reflection"],
)
def test_bytes_that_are_no_message_end_a_stream_after_what_was_answered(
    channel: grpc.Channel, caplog: pytest.LogCaptureFixture, method: str, sent: list[bytes], answers: int
) -> None:
    told = call_raw(channel.stream_stream(method), iter(sent))
    for _ in range(answers):
        next(told)
    with pytest.raises(grpc.RpcError) as caught:
        next(told)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not caplog.records
