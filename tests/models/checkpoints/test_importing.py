"""`python -m models import`: third parties' files become versions, what does not fit is refused by name."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from models.card import Preprocess
from models.cli import main
from models.engines.onnx import OnnxEngine
from models.networks.normalisation import Normalise
from models.repository import ModelRepository
from tests.models.making import random_network, randomise_norms

State = dict[str, Tensor]


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("".join(f"label {index}\n" for index in range(10)))
    return path


def cifar_state() -> State:
    return dict(random_network().state_dict())


def run_import(file: Path, labels: Path, *options: str, arch: str = "resnet20-cifar") -> int:
    to = str(file.parent / "repository")
    fixed = ["--arch", arch, "--labels", str(labels), "--name", "theirs", "--to", to]
    return main(["import", str(file), *fixed, *options])


def save_bare(state: State, path: Path) -> Path:
    torch.save(state, path / "net.pth")
    return path / "net.pth"


def save_nested(state: State, path: Path) -> Path:
    """As the CIFAR networks most used in the field are: under state_dict, `module.`, `linear`."""
    renamed = {f"module.{key.replace('fc.', 'linear.')}": value for key, value in state.items()}
    torch.save({"state_dict": renamed, "best_prec1": 91.7}, path / "net.th")
    return path / "net.th"


def save_model(state: State, path: Path) -> Path:
    torch.save({"model": state, "epoch": 3}, path / "net.pt")
    return path / "net.pt"


def save_legacy(state: State, path: Path) -> Path:
    torch.save(state, path / "net.pth", _use_new_zipfile_serialization=False)
    return path / "net.pth"


def save_half(state: State, path: Path) -> Path:
    half = {key: value.half().float() if value.is_floating_point() else value for key, value in state.items()}
    save_file(half, path / "net.safetensors")
    return path / "net.safetensors"


@pytest.mark.parametrize("save", [save_bare, save_nested, save_model, save_legacy, save_half])
def test_common_forms_of_checkpoint_are_imported(
    save: Callable[[State, Path], Path], tmp_path: Path, labels: Path
) -> None:
    assert run_import(save(cifar_state(), tmp_path), labels) == 0
    version = ModelRepository([tmp_path / "repository"]).find("theirs")
    views = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = random_network()(Normalise(version.card.preprocess)(torch.from_numpy(views)))
    tolerance = 0.05 if save is save_half else 1e-5
    np.testing.assert_allclose(OnnxEngine(version).infer(views).logits, expected.numpy(), atol=tolerance)
    assert version.card.provenance.kind == "imported"
    assert version.card.labels[9] == "label 9"


def test_torchvision_weights_load_unchanged(tmp_path: Path, labels: Path) -> None:
    network = torchvision.models.resnet18(num_classes=10).eval()
    randomise_norms(network)
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    assert run_import(tmp_path / "resnet18.pth", labels, arch="resnet18") == 0
    version = ModelRepository([tmp_path / "repository"]).find("theirs")
    views = np.random.default_rng(0).integers(0, 256, (1, 96, 80, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = network(Normalise(version.card.preprocess)(torch.from_numpy(views)))
    np.testing.assert_allclose(OnnxEngine(version).infer(views).logits, expected.numpy(), atol=2e-5)


def test_how_images_were_prepared_is_stored(tmp_path: Path, labels: Path) -> None:
    options = ["--mean", "0.5,0.4,0.3", "--std", "0.3,0.2,0.1", "--resize", "40", "--crop", "36"]
    file = save_bare(cifar_state(), tmp_path)
    assert run_import(file, labels, *options, "--interpolation", "bicubic") == 0
    card = ModelRepository([tmp_path / "repository"]).find("theirs").card
    assert card.preprocess == Preprocess(40, 36, (0.5, 0.4, 0.3), (0.3, 0.2, 0.1), "bicubic")


def test_second_import_is_the_next_version(tmp_path: Path, labels: Path) -> None:
    file = save_bare(cifar_state(), tmp_path)
    assert [run_import(file, labels) for _ in range(2)] == [0, 0]
    assert ModelRepository([tmp_path / "repository"]).find("theirs").card.version == 2


def with_projection(state: State) -> State:
    """Option B, as some published CIFAR networks have it: not one of the paper's."""
    return {**state, "layer2.0.downsample.0.weight": torch.zeros(32, 16, 1, 1)}


def without_a_key(state: State) -> State:
    return {key: value for key, value in state.items() if key != "layer3.1.bn2.running_var"}


def with_a_shape(state: State) -> State:
    return {**state, "layer1.0.conv1.weight": torch.zeros(16, 16, 1, 1)}


def with_more_classes(state: State) -> State:
    return {**state, "fc.weight": torch.zeros(11, 64), "fc.bias": torch.zeros(11)}


def with_a_nan(state: State) -> State:
    return {**state, "bn1.weight": torch.full((16,), torch.nan)}


def with_integers(state: State) -> State:
    return {**state, "bn1.weight": torch.ones(16, dtype=torch.int64)}


def with_a_list(state: State) -> Mapping[str, object]:
    return {**state, "notes": ["text"]}


MISFITS: list[tuple[Callable[[State], Mapping[str, object]], str]] = [
    (with_projection, "layer2.0.downsample.0.weight has no place in resnet20-cifar"),
    (without_a_key, "no layer3.1.bn2.running_var"),
    (with_a_shape, "layer1.0.conv1.weight has shape [16, 16, 1, 1], resnet20-cifar needs [16, 16, 3, 3]"),
    (with_more_classes, "the labels file has 10 labels, the checkpoint 11 classes"),
    (with_a_nan, "bn1.weight holds NaN"),
    (with_integers, "bn1.weight is torch.int64"),
    (with_a_list, "'notes' is a list"),
]


def refuse(capsys: pytest.CaptureFixture[str], code: int) -> str:
    """The one line of stderr with which a command was refused."""
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(("change", "message"), MISFITS, ids=[change.__name__ for change, _ in MISFITS])
def test_first_key_that_does_not_fit_is_named(
    change: Callable[[State], Mapping[str, object]],
    message: str,
    tmp_path: Path,
    labels: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.save(change(cifar_state()), tmp_path / "net.pth")
    assert message in refuse(capsys, run_import(tmp_path / "net.pth", labels))
    assert not (tmp_path / "repository" / "theirs" / "1").exists()


FILES = {
    "an object": (lambda path: torch.save(argparse.Namespace(a=1), path), "never unpickled"),
    "a list": (lambda path: torch.save([1], path), "holds a list"),
    "nothing in it": (lambda path: torch.save({}, path), "no tensors"),
    "empty": (lambda path: path.write_bytes(b""), "not a checkpoint"),
    "text": (lambda path: path.write_text("hello"), "not a checkpoint"),
    "cut": (lambda path: path.write_bytes(b"PK\x03\x04" + b"\0" * 60), "not a checkpoint"),
    "a folder": (lambda path: path.mkdir(), "Is a directory"),
    "absent": (lambda path: None, "No such file"),
}


@pytest.mark.parametrize(("write", "message"), FILES.values(), ids=FILES)
def test_bad_file_is_one_clear_line(
    write: Callable[[Path], object],
    message: str,
    tmp_path: Path,
    labels: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(tmp_path / "net.pth")
    assert message in refuse(capsys, run_import(tmp_path / "net.pth", labels))


def test_pickled_code_is_not_run(tmp_path: Path, labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Touch:
        def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
            return Path.touch, (tmp_path / "touched",)

    torch.save({"state_dict": Touch()}, tmp_path / "net.pth")
    assert "never unpickled" in refuse(capsys, run_import(tmp_path / "net.pth", labels))
    assert not (tmp_path / "touched").exists()


OPTIONS = {
    "architecture": (["--arch", "resnet21-cifar"], "resnet20-cifar"),
    "name": (["--name", "../up"], "model name"),
    "mean of 255": (["--mean", "123.7,116.3,103.5"], "units of 1"),
    "std of zero": (["--std", "0,1,1"], "units of 1"),
    "std of nan": (["--std", "nan,1,1"], "units of 1"),
    "crop above resize": (["--crop", "64"], "crop 64"),
}


@pytest.mark.parametrize(("options", "message"), OPTIONS.values(), ids=OPTIONS)
def test_bad_option_is_one_clear_line(
    options: list[str], message: str, tmp_path: Path, labels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = save_bare(cifar_state(), tmp_path)
    assert message in refuse(capsys, run_import(file, labels, *options))


@pytest.mark.parametrize("option", [["--mean", "1,2"], ["--crop", "x"], ["--intrepolation", "bicubic"]])
def test_misspelt_option_is_one_clear_line(
    option: list[str], tmp_path: Path, labels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        run_import(tmp_path / "net.pth", labels, *option)
    assert option[0] in refuse(capsys, int(str(exited.value.code)))


@pytest.mark.parametrize(
    ("text", "message"),
    [(b"", "0 labels"), (b"one\n", "1 labels"), (b"a\n\nb\n", "line 2"), (b"\xff\n", "UTF-8")],
    ids=["empty", "one", "blank line", "latin-1"],
)
def test_bad_labels_are_one_clear_line(
    text: bytes, message: str, tmp_path: Path, labels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels.write_bytes(text)
    assert message in refuse(capsys, run_import(save_bare(cifar_state(), tmp_path), labels))
