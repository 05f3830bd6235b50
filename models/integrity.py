"""Check the files of a model version against its card, before an engine sees them. No torch, no onnx."""

import hashlib
import math
import re
from pathlib import Path

from models.card import ModelCard
from models.graph import BadGraph, Graph, Initialiser, parse_graph
from models.tensors import BadWeights, Tensor, read_header, refuse_non_finite

WEIGHTS = "weights.safetensors"
GRAPH = "graph.onnx"
GRAPH_INT8 = "graph.int8.onnx"
CARD = "card.json"
INPUT = "views"
OUTPUTS = ("logits", "features")
CLASSIFIER_WEIGHT, CLASSIFIER_BIAS = "fc.weight", "fc.bias"

_FILES = frozenset({WEIGHTS, GRAPH, GRAPH_INT8})
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_GRAPH_BYTES = 512 * 2**20
_ONNX_FLOAT = 1


class BadVersion(ValueError):
    """A model version is not what its card says; the message names the first fault."""


def check_files(card: ModelCard, path: Path) -> None:
    """Exactly the files the card lists are there, regular ones, with the SHA-256 it lists."""
    required = frozenset() if card.members else frozenset({WEIGHTS, GRAPH})
    odd = sorted(set(card.files) - (_FILES if required else frozenset()))
    missing = sorted(required - set(card.files))
    if odd or missing:
        raise BadVersion(f"the card lists {odd[0]!r}" if odd else f"the card does not list {missing[0]}")
    for entry in sorted(path.iterdir()):
        if entry.name not in card.files and entry.name != CARD:
            raise BadVersion(f"{entry.name!r} is not in the card")
        if entry.is_symlink() or not entry.is_file():
            raise BadVersion(f"{entry.name} is a link or no regular file")
    for name, expected in card.files.items():
        if not (path / name).is_file():
            raise BadVersion(f"{name} is missing")
        if not _SHA256.fullmatch(expected) or _sha256(path / name) != expected:
            raise BadVersion(f"{name} does not have the SHA-256 of the card")


def check_contents(card: ModelCard, path: Path) -> None:
    """The tensors are finite and fit the labels; the graphs read them and nothing else.

    An ensemble has no tensors of its own: its members are checked by models.repository.check_members.
    """
    _check_card(card)
    if card.members:
        return
    try:
        tensors = read_header(path / WEIGHTS)
        _check_classifier(card, tensors)
        refuse_non_finite(path / WEIGHTS, tensors)
    except BadWeights as err:
        raise BadVersion(str(err)) from err
    for name in (GRAPH, GRAPH_INT8):
        if name in card.files:
            _check_graph(path / name, tensors)


def _check_card(card: ModelCard) -> None:
    if len(card.labels) < 2:  # two may be equal: ImageNet has two cranes
        raise BadVersion("the card needs at least two labels")
    if not card.golden:
        raise BadVersion("the card has no golden image")
    if not all(math.isfinite(member.weight) and member.weight > 0 for member in card.members):
        raise BadVersion("every member of an ensemble needs a weight above 0")
    for golden in card.golden:
        if len(golden.logits) != len(card.labels) or not all(map(math.isfinite, golden.logits)):
            raise BadVersion(f"a golden image needs {len(card.labels)} finite logits, one per label")


def _check_classifier(card: ModelCard, tensors: dict[str, Tensor]) -> None:
    weight, bias = tensors.get(CLASSIFIER_WEIGHT), tensors.get(CLASSIFIER_BIAS)
    if weight is None or bias is None:
        raise BadVersion(f"{WEIGHTS} has no {CLASSIFIER_WEIGHT} or {CLASSIFIER_BIAS}")
    classes = len(card.labels)
    if len(weight.shape) != 2 or weight.shape[0] != classes or bias.shape != (classes,):
        raise BadVersion(f"{CLASSIFIER_WEIGHT} has shape {list(weight.shape)}, the card {classes} labels")


def _check_graph(path: Path, tensors: dict[str, Tensor]) -> None:
    if path.stat().st_size > _MAX_GRAPH_BYTES:
        raise BadVersion(f"{path.name} is larger than {_MAX_GRAPH_BYTES} bytes")
    try:
        graph = parse_graph(path.read_bytes())
    except BadGraph as err:
        raise BadVersion(f"{path.name}: {err}") from err
    _check_interface(path.name, graph)
    for initialiser in graph.initialisers:
        if initialiser.external:
            _check_external(path.name, initialiser, tensors.get(initialiser.name))


def _check_interface(name: str, graph: Graph) -> None:
    if graph.inputs != (INPUT,) or graph.outputs != OUTPUTS:
        raise BadVersion(
            f"{name}: inputs {list(graph.inputs)} and outputs {list(graph.outputs)}, "
            f"expected {[INPUT]} and {list(OUTPUTS)}"
        )


def _check_external(graph: str, initialiser: Initialiser, tensor: Tensor | None) -> None:
    """An external constant is exactly the tensor of its name: same bytes, same numbers of float32."""
    if initialiser.external.get("location") != WEIGHTS:
        raise BadVersion(f"{graph}: constant {initialiser.name!r} lies outside {WEIGHTS}")
    if tensor is None:
        raise BadVersion(f"{graph}: constant {initialiser.name!r} is not a tensor of {WEIGHTS}")
    place = (initialiser.external.get("offset"), initialiser.external.get("length"))
    if place != (str(tensor.offset), str(tensor.size)):
        raise BadVersion(f"{graph}: constant {initialiser.name!r} is not where {WEIGHTS} has it")
    if initialiser.data_type != _ONNX_FLOAT or tensor.dtype != "<f4":
        raise BadVersion(f"{graph}: constant {initialiser.name!r} is not float32")
    if math.prod(initialiser.shape) != math.prod(tensor.shape):
        raise BadVersion(f"{graph}: constant {initialiser.name!r} has another shape than its tensor")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
