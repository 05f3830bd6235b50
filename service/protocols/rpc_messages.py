"""Between the messages of resnet.v1 and the service's own nouns."""

from dataclasses import asdict

from models.card import ModelCard
from service.errors import BadRequest, ServiceError, TooLarge
from service.pb import classifier_pb2 as pb
from service.protocols.options import parse_options
from service.protocols.rpc_calls import Call
from service.protocols.rpc_errors import find_code_number
from service.protocols.status import find_status
from service.settings import Settings
from service.types import ActivationMap, Classification, ClassifyOptions, ClassifyRequest, ModelSummary

_Models = pb.ListModelsResponse


def read_options(request: pb.ClassifyRequest) -> ClassifyOptions:
    """What the request asks for besides the image; raises BadRequest naming the field."""
    given: dict[str, str] = {}
    for name in ("model", "tta", "merge", "pool", "precision", "priority"):
        text = getattr(request, name)
        if text:
            given[name] = text
    for name in ("top_k", "class"):
        if request.HasField(name):  # type: ignore[arg-type]  # the stub wants literals
            given[name] = str(getattr(request, name))
    for name in ("map", "logits"):
        if getattr(request, name):
            given[name] = "true"
    if request.scales:
        given["scales"] = ",".join(map(str, request.scales))
    return parse_options(given)


def read_image(request: pb.ClassifyRequest) -> bytes:
    """The encoded image; raises BadRequest where there is none."""
    image = request.image
    if not image:
        raise BadRequest("the request has no image", "image")
    return image


def read_request(
    settings: Settings, call: Call, request_id: str, request: pb.ClassifyRequest
) -> ClassifyRequest:
    """One image and what is asked of it; raises BadRequest, TooLarge."""
    call.model = request.model
    image, options = read_image(request), read_options(request)
    check_size(image, settings.max_image_bytes)
    deadline = call.limit_deadline(settings.request_timeout_s, settings.max_request_timeout_s)
    return ClassifyRequest(image, request_id, deadline, options, call.caller, "grpc")


def check_size(image: bytes, limit_bytes: int) -> None:
    """Raises TooLarge for an image over SERVE_MAX_IMAGE_BYTES."""
    if len(image) > limit_bytes:
        raise TooLarge(f"image has {len(image)} bytes, the limit is {limit_bytes} (SERVE_MAX_IMAGE_BYTES)")


def write_answer(answer: Classification) -> pb.ClassifyResponse:
    """The answer as its message."""
    message = pb.ClassifyResponse(request_id=answer.request_id)
    model, tta, timings = answer.model, answer.tta, answer.timings_ms
    message.model.name, message.model.version, message.model.digest = model.name, model.version, model.digest
    for one in answer.predictions:
        message.predictions.add(index=one.index, label=one.label, probability=one.probability)
    message.tta.asked, message.tta.used, message.tta.views = tta.asked, tta.used, tta.views
    stages = message.timings_ms
    stages.decode, stages.queue = timings.decode, timings.queue
    stages.infer, stages.total = timings.infer, timings.total
    if answer.logits is not None:
        message.logits.extend(answer.logits)
    if answer.map is not None:
        message.map.CopyFrom(_write_map(answer.map))
    return message


def write_error(error: ServiceError) -> pb.Error:
    """The error of one image of a stream."""
    return pb.Error(
        type=error.slug,
        title=find_status(error).title,
        detail=error.detail,
        code=find_code_number(error),
        retry_after_s=error.retry_after_s,
    )


def write_models(summaries: list[ModelSummary]) -> pb.ListModelsResponse:
    """Every version, as /v1/models has them; a card's fields have the names of the messages' fields."""
    return _Models(models=[_write_model(one) for one in summaries])


def _write_map(given: ActivationMap) -> pb.ClassifyResponse.Map:
    message = pb.ClassifyResponse.Map(
        png=given.png,
        array=[pb.ClassifyResponse.Row(values=row) for row in given.array],
        box=pb.ClassifyResponse.Box(
            left=given.box.left, top=given.box.top, right=given.box.right, bottom=given.box.bottom
        ),
    )
    setattr(message, "class", given.class_index)
    return message


def _write_model(summary: ModelSummary) -> _Models.Model:
    message = _Models.Model(
        name=summary.name,
        version=summary.version,
        digest=summary.digest,
        state=summary.state,
        ready=summary.state == "ready",
        default=summary.is_default,
        default_version=summary.is_default_version,
        workers=summary.workers,
        precisions=summary.precisions,
        refused=[_Models.Refused(version=one.version, reason=one.reason) for one in summary.refused],
    )
    if summary.card is not None:
        message.MergeFrom(_write_card(summary.card))
        message.tta.cost_ms.update(summary.cost_ms)
    return message


def _write_card(card: ModelCard) -> _Models.Model:
    rule = card.preprocess
    policies = {name: _Models.Policy(**asdict(policy)) for name, policy in card.policies.items()}
    return _Models.Model(
        architecture=card.architecture,
        labels=card.labels,
        input=_Models.Input(resize_px=rule.resize_px, crop_px=rule.crop_px, interpolation=rule.interpolation),
        tta=_Models.Tta(default=card.default_tta, policies=policies),
        metrics=[_Models.Metric(**asdict(metric)) for metric in card.metrics],
        provenance=_Models.Provenance(**asdict(card.provenance)),
    )
