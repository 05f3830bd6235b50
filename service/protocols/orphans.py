"""What clients of servers that are no longer maintained, and of KServe's first protocol, send and expect."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from service.errors import BadRequest
from service.protocols.options import parse_options
from service.types import Classification, ClassifyOptions, Prediction

# As many images as one request of the Open Inference Protocol may have.
MAX_INSTANCES = 256
# TorchServe's image classifier answers with this many classes.
TORCHSERVE_TOP_K = 5
# Options that these routes take in the query; whatever else their clients write there says nothing to us.
OPTIONS = ("tta", "scales", "merge", "pool", "precision", "priority")


class _Predict(msgspec.Struct):
    instances: list[Any]


_decoder = msgspec.json.Decoder(_Predict)


def parse_instances(body: bytes) -> list[bytes]:
    """The images of `{"instances": [...]}`; raises BadRequest.

    An instance is `{"b64": TEXT}`, the same under one name of any spelling, or `{"data": TEXT}`.
    """
    try:
        instances = _decoder.decode(body).instances
    except (msgspec.DecodeError, RecursionError) as err:
        raise BadRequest(f"the request is not a prediction request: {str(err)[:200]}") from err
    if not 1 <= len(instances) <= MAX_INSTANCES:
        many = f"{len(instances)} instances, it must have 1 to {MAX_INSTANCES}"
        raise BadRequest(f"the request has {many}", "instances")
    return [_decode(number, one) for number, one in enumerate(instances)]


def read_options(query: Mapping[str, str], model: str, top_k: int) -> ClassifyOptions:
    """What the query asks for; raises BadRequest."""
    given = {name: query[name] for name in OPTIONS if name in query}
    return replace(parse_options(given), model=model, top_k=top_k)


def name_labels(predictions: tuple[Prediction, ...]) -> dict[str, float]:
    """TorchServe's answer: label -> probability, best first; of classes with the same label the best."""
    told: dict[str, float] = {}
    for one in predictions:
        told.setdefault(one.label, one.probability)
    return told


def describe_prediction(answer: Classification, classes: int) -> dict[str, Any]:
    """One element of `predictions`: the outputs a classifier's SavedModel has, and the best class by name."""
    probabilities = [0.0] * classes
    for one in answer.predictions:
        probabilities[one.index] = one.probability
    best = answer.predictions[0]
    return {"classes": best.index, "label": best.label, "probabilities": probabilities}


def _decode(number: int, instance: Any) -> bytes:
    found = instance
    while isinstance(found, dict) and len(found) == 1:
        [(_, found)] = found.items()
    if not isinstance(found, str):
        raise BadRequest(f'instance {number} is not {{"b64": "..."}}', "instances")
    try:
        return base64.b64decode(found, validate=True)
    except (binascii.Error, ValueError) as err:
        raise BadRequest(f"instance {number} is not valid base64", "instances") from err
