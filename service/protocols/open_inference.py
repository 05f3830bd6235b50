"""The Open Inference Protocol v2 without a transport: what is asked, and how the Classifier answers it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from service.errors import BadRequest, UnknownModel
from service.protocols.base import ProtocolContext
from service.protocols.many import ManyImages, classify_many
from service.protocols.open_inference_tensors import (
    OUTPUT,
    OutputAsked,
    OutputTensor,
    make_classification,
    make_probs,
)
from service.protocols.options import parse_options
from service.types import ClassifyOptions, ModelSummary

# Parameters of the protocol that say nothing about classification.
IGNORED = frozenset({"sequence_id", "sequence_start", "sequence_end", "binary_data_output"})
# Options that the protocol has its own words for.
NOT_PARAMETERS = frozenset({"model", "top_k", "map", "class", "logits"})
MAX_TIMEOUT_US = 10**15

Parameter = str | int | float | bool


@dataclass(frozen=True, slots=True)
class InferCall:
    """A request; `id` is the caller's own and comes back, `deadline` is time.monotonic() seconds."""

    model: str
    version: str
    id: str
    images: list[bytes]
    output: OutputAsked
    parameters: Mapping[str, Parameter]
    request_id: str
    deadline: float
    protocol: str


@dataclass(frozen=True, slots=True)
class InferAnswer:
    """What answered, and `PROBS`."""

    model: ModelSummary
    output: OutputTensor


def name_model(name: str, version: str) -> str:
    """The service's own word for a model and a version of it, of which the latter may be ""."""
    return f"{name}@{version}" if version else name


def find_model(context: ProtocolContext, name: str, version: str) -> ModelSummary:
    """The version asked for; raises UnknownModel, also for one that failed its checks."""
    summary = context.classifier.find_model(name_model(name, version)) if name else None
    if summary is None or summary.card is None:
        raise UnknownModel(f"model {name[:80]!r} has no version {version[:20]!r} that is served")
    return summary


def read_parameters(given: Mapping[str, Parameter], deadline: float) -> tuple[ClassifyOptions, float]:
    """Options and the deadline that `timeout`, in microseconds, may bring forward; raises BadRequest."""
    texts: dict[str, str] = {}
    for name, value in given.items():
        if name == "timeout":
            deadline = min(deadline, time.monotonic() + _read_timeout_s(value))
        elif name == "priority":
            texts[name] = _read_priority(value)
        elif name in NOT_PARAMETERS:
            raise BadRequest(f"{name} is not a parameter of this protocol", name)
        elif name not in IGNORED:
            texts[name] = str(value)
    return parse_options(texts), deadline


async def infer(context: ProtocolContext, call: InferCall) -> InferAnswer:
    """Classify every image of `call`; raises the first ServiceError."""
    model = find_model(context, call.model, call.version)
    assert model.card is not None
    options, deadline = read_parameters(call.parameters, call.deadline)
    classes = len(model.card.labels)
    count = min(call.output.classification, classes)
    options = replace(options, model=name_model(model.name, str(model.version)), top_k=count or classes)
    many = ManyImages(call.images, options, call.request_id, deadline, call.protocol)
    answers = [one.predictions for one in await classify_many(context, many)]
    output = make_classification(answers, count) if count else make_probs(answers, classes)
    return InferAnswer(model, output)


def check_output(name: str) -> None:
    """Raises BadRequest for an output that does not exist."""
    if name != OUTPUT:
        raise BadRequest(f"output {name[:80]!r} is not known, the only one is {OUTPUT}", "outputs")


def read_classification(value: object) -> int:
    """The parameter `classification` of an output; raises BadRequest."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1_000_000:
        raise BadRequest("classification must be a number of classes", "classification")
    return value


def _read_timeout_s(value: Parameter) -> float:
    is_number = (isinstance(value, int) and not isinstance(value, bool)) or isinstance(value, str)
    text = str(value)
    if not is_number or not text.isascii() or not text.isdigit() or int(text) > MAX_TIMEOUT_US:
        raise BadRequest("timeout must be microseconds, an integer", "timeout")
    return int(text) / 1e6 or float("inf")  # 0 is none


def _read_priority(value: Parameter) -> str:
    """The protocol's numbers: 0 is the default and 1 the highest, what is below it is bulk."""
    if isinstance(value, int) and not isinstance(value, bool):
        return "interactive" if value in (0, 1) else "bulk"
    return str(value)
