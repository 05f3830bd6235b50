"""Turn a third party's checkpoint into a model version: read it, fit it to an architecture, export it."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from models.card import ModelCard, Preprocess, Provenance
from models.checkpoints.export import export_version
from models.checkpoints.reading import BadCheckpoint, read_checkpoint
from models.integrity import CLASSIFIER_WEIGHT
from models.networks.architecture import Architecture, Network
from models.repository import ModelVersion

MAX_LABEL_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Import:
    """What to import: the checkpoint file, what network it is, its labels, how images were prepared."""

    checkpoint: Path
    architecture: Architecture
    labels: tuple[str, ...]
    name: str
    preprocess: Preprocess


def import_checkpoint(asked: Import, directory: Path) -> ModelVersion:
    """Write the checkpoint as the next version of `asked.name` in the repository `directory`.

    Raises BadCheckpoint naming the first key that does not fit; BadVersion, OSError.
    """
    network = fit_network(asked.architecture, asked.labels, read_checkpoint(asked.checkpoint))
    with asked.checkpoint.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    card = ModelCard(
        name=asked.name,
        version=0,  # the next free one
        architecture=asked.architecture.name,
        labels=asked.labels,
        preprocess=asked.preprocess,
        window=asked.architecture.window,
        provenance=Provenance(
            kind="imported",
            created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            source=asked.checkpoint.name,
            source_sha256=sha256,
        ),
    )
    return export_version(network, card, directory)


def fit_network(architecture: Architecture, labels: tuple[str, ...], state: dict[str, Tensor]) -> Network:
    """The network with these weights; raises BadCheckpoint naming the first key that does not fit."""
    with torch.device("meta"):
        network = architecture.build(len(labels))
    expected = {
        key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")
    }
    for key, value in state.items():
        _refuse_unfit(architecture.name, key, value, expected.get(key), len(labels))
    for key in expected:
        if key not in state:
            raise BadCheckpoint(f"the checkpoint has no {key}, which {architecture.name} needs")
    network = network.to_empty(device="cpu")
    network.load_state_dict({key: value.float() for key, value in state.items()}, strict=False)
    return network.eval()


def _refuse_unfit(architecture: str, key: str, value: Tensor, expected: Tensor | None, classes: int) -> None:
    if expected is None:
        raise BadCheckpoint(f"the checkpoint's {key} has no place in {architecture}")
    if value.shape != expected.shape:
        remedy = ""
        if key == CLASSIFIER_WEIGHT and value.ndim == 2 and value.shape[1:] == expected.shape[1:]:
            remedy = f": the labels file has {classes} labels, the checkpoint {value.shape[0]} classes"
        raise BadCheckpoint(
            f"the checkpoint's {key} has shape {list(value.shape)}, "
            f"{architecture} needs {list(expected.shape)}{remedy}"
        )
    if not value.is_floating_point():
        raise BadCheckpoint(f"the checkpoint's {key} is {value.dtype}, expected a floating-point type")
    if not value.isfinite().all():
        raise BadCheckpoint(f"the checkpoint's {key} holds NaN or infinity")


def read_labels(path: Path) -> tuple[str, ...]:
    """One label a line, UTF-8, in the order of the classifier's rows; raises BadCheckpoint, OSError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as err:
        raise BadCheckpoint(f"{path.name} is not UTF-8 text") from err
    labels = tuple(line.strip() for line in lines)
    for number, label in enumerate(labels, start=1):
        if not label or len(label) > MAX_LABEL_CHARACTERS or not label.isprintable():
            raise BadCheckpoint(
                f"{path.name}: line {number} must be a label of 1 to {MAX_LABEL_CHARACTERS} characters"
            )
    if len(labels) < 2:
        raise BadCheckpoint(f"{path.name} has {len(labels)} labels, at least two are needed")
    return labels
