"""The Open Inference Protocol v2 without a transport: what is asked, and how the Classifier answers it."""

import time
from collections.abc import Iterable, Mapping, Sequence
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
from service.types import ClassifyOptions, ModelSummary, TtaUse

# Parameters of the protocol that say nothing about classification.
IGNORED = frozenset(
    {
        "sequence_id",
        "sequence_start",
        "sequence_end",
        "binary_data_output",
        "triton_enable_empty_final_response",  # an answer here is always the final one, and says so
    }
)
# Those it shares with the other protocols: the protocol has its own words for the rest.
SHARED = ("tta", "scales", "merge", "pool", "precision")
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
    caller: str = ""


@dataclass(frozen=True, slots=True)
class InferAnswer:
    """What answered, `PROBS`, and what `parameters` tell of the view policy (see describe_tta)."""

    model: ModelSummary
    output: OutputTensor
    parameters: Mapping[str, str | int]


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
        elif name in SHARED:
            texts[name] = str(value)
        elif name not in IGNORED:
            known = ", ".join([*SHARED, "priority", "timeout"])
            shown = f"{name[:40]!r} is not a parameter of this protocol"
            raise BadRequest(f"{shown}; known are {known}", name[:80])
    return parse_options(texts), deadline


async def infer(context: ProtocolContext, call: InferCall) -> InferAnswer:
    """Classify every image of `call`; raises the first ServiceError."""
    model = find_model(context, call.model, call.version)
    assert model.card is not None
    options, deadline = read_parameters(call.parameters, call.deadline)
    classes = len(model.card.labels)
    count = min(call.output.classification, classes)
    options = replace(options, model=name_model(model.name, str(model.version)), top_k=count or classes)
    many = ManyImages(call.images, options, call.request_id, deadline, call.protocol, call.caller)
    found = await classify_many(context, many)
    answers = [one.predictions for one in found]
    output = make_classification(answers, count) if count else make_probs(answers, classes)
    return InferAnswer(model, output, describe_tta([one.tta for one in found]))


def describe_tta(uses: Sequence[TtaUse]) -> dict[str, str | int]:
    """The policy asked for, the one used (one for each image where overload told them apart), all views."""
    used = [one.used for one in uses]
    named = used[0] if len(set(used)) == 1 else ",".join(used)
    return {"tta_asked": uses[0].asked, "tta_used": named, "tta_views": sum(one.views for one in uses)}


def check_outputs(names: Sequence[str]) -> None:
    """Raises BadRequest for an output that does not exist, or that is asked for twice."""
    for name in names:
        if name != OUTPUT:
            raise BadRequest(f"output {name[:80]!r} is not known, the only one is {OUTPUT}", "outputs")
    if len(names) > 1:
        raise BadRequest(f"output {OUTPUT} is asked for {len(names)} times", "outputs")


def refuse_shared_memory(parameters: Iterable[str]) -> None:
    """Raises BadRequest where a tensor's parameters say that it lies in shared memory."""
    for name in parameters:
        if name.startswith("shared_memory_"):
            raise BadRequest("tensors in shared memory are not supported: send the bytes", name[:80])


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
    if not isinstance(value, int) or isinstance(value, bool):
        return str(value)
    if value < 0:
        raise BadRequest(f"priority is {value}, it must be 0 or more", "priority")
    return "interactive" if value in (0, 1) else "bulk"
