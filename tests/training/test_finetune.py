"""A folder of real photographs becomes a model version that an engine serves."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.card import Member
from models.decode import DecodeLimits, decode_image
from models.engines.onnx import OnnxEngine
from models.repository import ModelRepository, check_version
from models.selftest import run_selftest
from training.errors import BadRecipe
from training.evaluate import Split, measure_policies
from training.finetune import Finetune, make_recipe, name_after
from training.splits import open_splits
from training.viewing import make_context, record_policy

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = ROOT / "tests/data/cifar10-photos"
ZOO = ROOT / "models/zoo"
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}  # no waiting for a busy core


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The command as README has it, in a directory of its own; one picture is broken."""
    home = tmp_path_factory.mktemp("home")
    data = home / "My Photos"
    for path in PHOTOS.rglob("*.png"):
        target = data / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (data / "frog/broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    command = [sys.executable, "-m", "training", "finetune", f"--data={data}", "--from=cifar10"]
    command += ["--to=repository", f"--zoo={ZOO}", "--set=schedule.epochs=4", "--set=run.workers=0"]
    done = subprocess.run(command, cwd=home, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return home, done.stdout


def test_it_becomes_a_sound_version_named_after_the_folder(finetuned: tuple[Path, str]) -> None:
    home, output = finetuned
    assert "my-photos@1 in repository/my-photos/1" in output
    assert "broken.jpg: it cannot be decoded" in output
    assert [path.name for path in (home / "runs/finetune").iterdir()] == ["my-photos-1"], (
        "the next begins anew"
    )
    version = check_version(home / "repository/my-photos/1")
    assert version.card.labels == ("airplane", "frog", "truck")
    for precision in ("fp32", "int8"):
        run_selftest(version.card, OnnxEngine(version, precision), precision)


def test_the_card_states_what_held_out_pictures_showed(finetuned: tuple[Path, str]) -> None:
    home, _ = finetuned
    version = ModelRepository([home / "repository"]).find("my-photos")
    card = version.card
    [center] = [metric for metric in card.metrics if (metric.tta, metric.precision) == ("center", "fp32")]
    assert (center.dataset, center.split, center.images) == ("My Photos", "test", 8)
    # three of each class, and one of them is the broken file
    assert center.top1_error < 40, "chance is 67 %"
    assert set(card.policies) == {"center", "mirror", "ten_crop", "dense", "multi_scale", "adaptive"}
    assert card.policies["adaptive"].margin is not None
    assert card.provenance.recipe == "finetune/photos"
    assert "begun from cifar10@" in str(card.provenance.note)


def test_a_photograph_gets_its_class(finetuned: tuple[Path, str]) -> None:
    home, _ = finetuned
    version = ModelRepository([home / "repository"]).find("my-photos")
    engine = OnnxEngine(version)
    images = [
        decode_image(path.read_bytes(), DecodeLimits()).pixels for path in sorted(PHOTOS.rglob("*.png"))
    ]
    record = record_policy("center", images, make_context(version.card, engine, "center"), engine)
    truth = np.repeat([0, 1, 2], len(images) // 3)
    assert (record.probabilities.argmax(axis=1) == truth).mean() > 0.8


def test_the_measured_error_is_found_again(finetuned: tuple[Path, str]) -> None:
    home, _ = finetuned
    version = ModelRepository([home / "repository"]).find("my-photos")
    asked = Finetune(home / "My Photos", ModelRepository([ZOO]).find("cifar10"), "x", home, home)
    splits = open_splits(make_recipe(asked), home / "My Photos", print)
    assert splits.test is not None
    engine = OnnxEngine(version)
    rows = measure_policies(version.card, engine, Split("My Photos", "test", splits.test))
    stated = [metric for metric in version.card.metrics if metric.precision == "fp32"]
    assert [row.metric for row in rows] == stated


def test_few_pictures_still_make_four_steps_an_epoch(tmp_path: Path) -> None:
    start = ModelRepository([ZOO]).find("cifar10")
    recipe = make_recipe(Finetune(PHOTOS, start, "x", tmp_path, tmp_path))
    assert recipe.optimizer.batch == 42 // 4
    assert recipe.network == start.card.architecture
    assert recipe.augment.crop_px == start.card.preprocess.crop_px


def test_a_folder_of_one_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "cats/a.png")
    command = [sys.executable, "-m", "training", "finetune", f"--data={tmp_path}", "--from=cifar10"]
    done = subprocess.run(
        [*command, f"--to={tmp_path}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "at least two are needed, one for each class" in done.stderr


@pytest.mark.parametrize(
    ("folder", "name"),
    [("My Photos", "my-photos"), ("cats", "cats"), ("Ünïcode!", "n-code"), ("__", "photos")],
)
def test_names_follow_the_folder(folder: str, name: str) -> None:
    assert name_after(Path("/data") / folder) == name


def test_an_ensemble_cannot_be_finetuned(tmp_path: Path) -> None:
    start = ModelRepository([ZOO]).find("cifar10")
    ensemble = replace(start, card=replace(start.card, members=(Member("a", 1, "0" * 64),)))
    with pytest.raises(BadRecipe, match="is an ensemble"):
        make_recipe(Finetune(PHOTOS, ensemble, "x", tmp_path, tmp_path))
