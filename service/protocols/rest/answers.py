"""The JSON of the public answers, built from the nouns of service/types.py."""

import base64
from dataclasses import asdict
from typing import Any

import msgspec

from service.types import ActivationMap, Classification, ModelSummary, ServiceStatus, Timings
from service.version import find_version


def encode_classification(answer: Classification) -> bytes:
    """The answer to /v1/classify; `logits` and `map` only where they were asked for."""
    return msgspec.json.encode(describe_classification(answer))


def describe_classification(answer: Classification) -> dict[str, Any]:
    """The members of an answer, ready for JSON."""
    told: dict[str, Any] = {
        "request_id": answer.request_id,
        "model": answer.model,
        "predictions": answer.predictions,
        "tta": answer.tta,
        "timings_ms": answer.timings_ms,
    }
    if answer.logits is not None:
        told["logits"] = answer.logits
    if answer.map is not None:
        told["map"] = _describe_map(answer.map)
    return told


def format_server_timing(timings: Timings) -> bytes:
    """The Server-Timing header's value, milliseconds."""
    return b"decode;dur=%.2f, queue;dur=%.2f, infer;dur=%.2f, total;dur=%.2f" % (
        timings.decode,
        timings.queue,
        timings.infer,
        timings.total,
    )


def describe_model(model: ModelSummary) -> dict[str, Any]:
    """One entry of /v1/models: what a caller needs to choose a model, and what its card claims of it."""
    told: dict[str, Any] = {
        "name": model.name,
        "version": model.version,
        "digest": model.digest,
        "state": model.state,
        "ready": model.state == "ready",
        "default": model.is_default,
        "default_version": model.is_default_version,
        "workers": model.workers,
        "precisions": list(model.precisions),
        "architecture": None,
        "labels": [],
        "input": None,
        "tta": None,
        "metrics": [],
        "provenance": None,
        "refused": [asdict(one) for one in model.refused],
    }
    card = model.card
    if card is not None:
        rule = card.preprocess
        told |= {
            "architecture": card.architecture,
            "labels": list(card.labels),
            "input": {
                "resize_px": rule.resize_px,
                "crop_px": rule.crop_px,
                "interpolation": rule.interpolation,
            },
            "tta": {
                "default": card.default_tta,
                "policies": {name: asdict(policy) for name, policy in sorted(card.policies.items())},
                "cost_ms": dict(sorted(model.cost_ms.items())),
            },
            "metrics": [asdict(metric) for metric in card.metrics],
            "provenance": asdict(card.provenance),
        }
    return told


def describe_status(status: ServiceStatus) -> dict[str, Any]:
    """The answer to /v1/status."""
    return {
        "version": find_version(),
        "ready": status.is_ready,
        "draining": status.is_draining,
        "inflight_bytes": status.inflight_bytes,
        "max_inflight_bytes": status.max_inflight_bytes,
        "children": [asdict(child) for child in status.children],
        "workers": [asdict(worker) for worker in status.workers],
    }


def _describe_map(map: ActivationMap) -> dict[str, Any]:
    return {
        "png": base64.b64encode(map.png).decode("ascii"),
        "array": map.array,
        "class": map.class_index,
        "box": map.box,
    }
