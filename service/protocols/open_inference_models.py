"""What the Open Inference Protocol tells of the server and its models, as plain data for HTTP and gRPC."""

from typing import Any

from service.metrics import ModelTotals
from service.protocols.open_inference_tensors import INPUT, MAX_IMAGES, OUTPUT
from service.types import ModelSummary
from service.version import NAME, find_version

EXTENSIONS = (
    "classification",
    "binary_tensor_data",
    "parameters",
    "model_configuration",
    "model_repository",
    "statistics",
)
PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"


def describe_server() -> dict[str, Any]:
    """Name, version and extensions."""
    return {"name": NAME, "version": find_version(), "extensions": list(EXTENSIONS)}


def describe_model(model: ModelSummary, versions: list[str]) -> dict[str, Any]:
    """The tensors of one version; `versions` are those of its name that are served."""
    return {
        "name": model.name,
        "versions": versions,
        "platform": PLATFORM,
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1, 1]}],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, count_classes(model)]}],
    }


def describe_config(model: ModelSummary) -> dict[str, Any]:
    """The same as a configuration file would say it: shapes without the batch's dimension."""
    return {
        "name": model.name,
        "platform": PLATFORM,
        "backend": BACKEND,
        "max_batch_size": MAX_IMAGES,
        "input": [{"name": INPUT, "data_type": "TYPE_STRING", "dims": [1]}],
        "output": [{"name": OUTPUT, "data_type": "TYPE_FP32", "dims": [count_classes(model)]}],
    }


def describe_statistics(model: ModelSummary, totals: ModelTotals) -> dict[str, Any]:
    """What was inferred since the service started, as /metrics has it.

    Counted by name: versions of one name share their counts. An inference is an image, however many a request
    brought; a batch's size is in views, and its images were decoded before they were batched.
    """
    stages = {
        "success": totals.total,
        "fail": totals.failed,
        "queue": totals.queue,
        "compute_input": totals.decode,
        "compute_infer": totals.inference,
        "compute_output": (totals.total[0], 0.0),
    }
    return {
        "name": model.name,
        "version": str(model.version),
        "last_inference": int(totals.last_answer_s * 1000),
        "inference_count": totals.total[0],
        "execution_count": totals.batches,
        "inference_stats": {
            name: {"count": count, "ns": int(seconds * 1e9)} for name, (count, seconds) in stages.items()
        },
        "batch_stats": [
            {
                "batch_size": views,
                "compute_input": {"count": count, "ns": 0},
                "compute_infer": {"count": count, "ns": int(seconds * 1e9)},
                "compute_output": {"count": count, "ns": 0},
            }
            for views, (count, seconds) in totals.sizes.items()
        ],
    }


def list_index(models: list[ModelSummary], *, is_ready_only: bool) -> list[dict[str, str]]:
    """Every version known, those that failed their checks too."""
    found: dict[tuple[str, int], dict[str, str]] = {}
    for model in models:
        for refused in model.refused:
            found[model.name, refused.version] = _index(model.name, refused.version, refused.reason)
    for model in models:
        if model.state != "refused":
            reason = "" if model.state == "ready" else "no worker is up"
            found[model.name, model.version] = _index(model.name, model.version, reason)
    return [found[key] for key in sorted(found) if not is_ready_only or found[key]["state"] == "READY"]


def list_versions(models: list[ModelSummary], name: str) -> list[str]:
    """The versions of `name` that are served."""
    return [str(one.version) for one in models if one.name == name and one.state != "refused"]


def count_classes(model: ModelSummary) -> int:
    """K."""
    return len(model.card.labels) if model.card else 0


def _index(name: str, version: int, reason: str) -> dict[str, str]:
    state = "UNAVAILABLE" if reason else "READY"
    return {"name": name, "version": str(version), "state": state, "reason": reason}
