"""Images in folders: what is missing or broken is said; what is drawn depends on the step alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.making import Quiet, write_imagenet, write_photos
from training.data.folder import CenterCut, RandomCut
from training.data.listing import list_folder, list_imagenet, split_listing
from training.data.served import Pixels, Unreadable, read_image
from training.distributed import Ranks
from training.errors import BadRecipe, DataMissing
from training.recipe import Recipe, load_recipe
from training.state import load_state
from training.task import Task, open_task, preprocess_of
from training.train import train

CPU = Ranks(torch.device("cpu"))


def small_recipe(*overrides: str) -> Recipe:
    """ResNet-18 at 32 px on folders, six images a step."""
    return load_recipe(
        "imagenet/resnet18",
        [
            *("data.native_px=32", "augment.crop_px=32", "augment.shorter_side_px=[32, 60]", "run.workers=0"),
            *("optimizer.batch=6", "optimizer.lr=0.001", "schedule.iterations=3", *overrides),
        ],
    )


def open_small(root: Path, *overrides: str) -> tuple[Task, Quiet]:
    quiet = Quiet()
    return open_task(small_recipe(*overrides), root, CPU, quiet.say), quiet


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_imagenet(tmp_path_factory.mktemp("imagenet"))


def test_folders_are_classes_in_name_order(tmp_path: Path) -> None:
    listing = list_folder(write_photos(tmp_path, classes=3, per_class=4))
    assert listing.labels == ("class 0", "class 1", "class 2")
    assert np.bincount(listing.targets).tolist() == [4, 4, 4]


def test_a_split_holds_out_a_part_of_every_class_and_overlaps_nowhere(tmp_path: Path) -> None:
    listing = list_folder(write_photos(tmp_path, classes=3, per_class=8))
    parts = split_listing(listing, (0.25, 0.1), seed=0)
    assert [np.bincount(part.targets).tolist() for part in parts] == [[5] * 3, [2] * 3, [1] * 3]
    assert len({path for part in parts for path in part.paths}) == 24
    again = split_listing(listing, (0.25, 0.1), seed=0)
    assert [part.paths for part in again] == [part.paths for part in parts]


def test_what_is_missing_is_said_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="is not a directory"):
        list_folder(tmp_path / "absent")
    with pytest.raises(DataMissing, match="at least two are needed"):
        list_folder(tmp_path)
    with pytest.raises(DataMissing, match="unpack its training and validation archives"):
        list_imagenet(tmp_path)
    (tmp_path / "cats").mkdir()
    write_photos(tmp_path, classes=1, per_class=2)
    with pytest.raises(DataMissing, match=r"cats holds no image"):
        list_folder(tmp_path)
    with pytest.raises(DataMissing, match="has 2 images; at least 3 are needed"):
        split_listing(list_folder(write_photos(tmp_path / "few", per_class=2)), (0.15, 0.15), 0)


def test_an_unsorted_validation_set_is_recognised(tmp_path: Path) -> None:
    write_imagenet(tmp_path)
    (tmp_path / "val/class 0/0.jpg").rename(tmp_path / "val/ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(DataMissing, match="move each into the folder of its class"):
        list_imagenet(tmp_path)


@pytest.mark.parametrize("workers", [0, 2], ids=["in this process", "in two workers"])
def test_a_batch_depends_on_its_step_alone(imagenet: Path, workers: int) -> None:
    task, _ = open_small(imagenet)
    here = list(task.source.batches(0, 5))
    other, _ = open_small(imagenet, f"run.workers={workers}")
    later = list(other.source.batches(3, 5))
    for ours, theirs in zip(here[3:], later, strict=True):
        assert torch.equal(ours.x, theirs.x)
        assert torch.equal(ours.targets, theirs.targets)
    assert not torch.equal(here[0].x, here[1].x)


def test_two_processes_share_what_one_would_see(imagenet: Path) -> None:
    recipe, quiet = small_recipe(), Quiet()
    whole = next(iter(open_task(recipe, imagenet, CPU, quiet.say).source.batches(2, 3)))
    for rank in range(2):
        ranks = replace(CPU, rank=rank, world=2)
        part = next(iter(open_task(recipe, imagenet, ranks, quiet.say).source.batches(2, 3)))
        assert torch.equal(part.x, whole.x[3 * rank : 3 * rank + 3])


def test_a_training_view_has_the_size_the_recipe_says() -> None:
    recipe = small_recipe()
    random = np.random.default_rng(0)
    cut = RandomCut(recipe, preprocess_of(recipe))
    for place, (height, width) in enumerate([(33, 31), (300, 40), (32, 32), (40, 900)]):
        image: Pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        assert cut(image, place).shape == (32, 32, 3)
        assert CenterCut(cut.preprocess)(image, place).shape == (32, 32, 3)


def test_a_broken_image_stops_with_its_name_and_the_remedy(tmp_path: Path) -> None:
    write_imagenet(tmp_path)
    (tmp_path / "train/class 1/3.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    with pytest.raises(DataMissing, match=r"class 1/3.png cannot be decoded.*data.skip_broken=true"):
        open_small(tmp_path)


def test_broken_images_are_named_once_and_left_out_on_request(tmp_path: Path) -> None:
    write_imagenet(tmp_path)
    for name in ("train/class 1/3.png", "train/class 2/0.jpg", "val/class 0/1.png"):
        (tmp_path / name).write_bytes(b"no picture")
    quiet = Quiet()
    recipe = small_recipe("data.skip_broken=true", "schedule.iterations=12")
    train(recipe, tmp_path, tmp_path / "run", CPU, quiet)
    assert quiet.steps == 12  # three passes over the training images
    assert len([line for line in quiet.said if "3.png" in line]) == 1
    assert "(3 so far): the image's first bytes are of no format" in quiet.said[-1]
    assert all(value.isfinite().all() for value in load_state(tmp_path / "run/best.pt").model.values())


def test_a_class_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    write_imagenet(tmp_path)
    for path in (tmp_path / "train/class 1").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(DataMissing, match="class 'class 1' has no image to train on"):
        open_small(tmp_path, "data.skip_broken=true")


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    """macOS leaves `._name.jpg` beside every file it copies to a foreign disk."""
    write_photos(tmp_path, classes=2, per_class=2)
    (tmp_path / "class 1/._0.jpg").write_bytes(b"\x00\x05\x16\x07")
    assert len(list_folder(tmp_path)) == 4


def test_a_file_that_may_not_be_read_is_said_like_a_broken_one(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").mkdir()  # reading a directory fails for root too
    with pytest.raises(Unreadable, match="Is a directory"):
        read_image(tmp_path / "a.jpg")


def test_a_run_on_folders_resumes_exactly(imagenet: Path, tmp_path: Path) -> None:
    whole = small_recipe("schedule.iterations=6", "run.checkpoint_every_steps=2")
    train(whole, imagenet, tmp_path / "whole", CPU, Quiet())
    train(whole, imagenet, tmp_path / "half", CPU, Quiet())
    for path in (tmp_path / "half").glob("*.pt"):
        if path.name != "step-00000004.pt":
            path.unlink()
    assert load_state(tmp_path / "half/step-00000004.pt").step == 4
    train(whole, imagenet, tmp_path / "half", CPU, Quiet())
    ours, theirs = (load_state(tmp_path / name / "step-00000006.pt") for name in ("half", "whole"))
    assert all(torch.equal(ours.model[key], value) for key, value in theirs.model.items())


def test_a_mean_per_pixel_needs_one_size(imagenet: Path) -> None:
    with pytest.raises(BadRecipe, match="a mean per pixel needs one size"):
        open_small(imagenet, "augment.crop_px=24")
