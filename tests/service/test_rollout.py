"""What ought to be served, from what lies in the repository. Needs no torch: the zoo's model is copied."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import models
from models.repository import ModelRepository, check_version, write_default, write_version
from service.rollout import Rollout
from service.settings import load_settings

CIFAR10 = next(iter(sorted((Path(models.__file__).parent / "zoo" / "cifar10").iterdir())))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Versions 1, 2 and 3 of one model."""
    shipped = check_version(CIFAR10)
    files = {name: (CIFAR10 / name).read_bytes() for name in shipped.card.files}
    for number in (1, 2, 3):
        write_version(tmp_path, replace(shipped.card, version=number), files)
    return tmp_path


def make_rollout(directory: Path, models_setting: str = "") -> Rollout:
    return Rollout(ModelRepository([directory]), load_settings({"models": models_setting}, {}))


def list_versions(rollout: Rollout) -> list[int]:
    return [target.model.version for target in rollout.choose()]


def test_highest_is_served_until_serving_json_says_otherwise(directory: Path) -> None:
    rollout = make_rollout(directory)
    assert list_versions(rollout) == [3]
    write_default(directory, "cifar10", 1)
    assert list_versions(rollout) == [1]


def test_unreadable_serving_json_changes_nothing(directory: Path) -> None:
    write_default(directory, "cifar10", 1)
    rollout = make_rollout(directory)
    assert list_versions(rollout) == [1]
    (directory / "cifar10" / "serving.json").write_text('{"default": ')
    assert list_versions(rollout) == [1]
    (directory / "cifar10" / "serving.json").write_text('{"default": 2}')
    assert list_versions(rollout) == [2]


def test_refused_version_is_passed_over_for_the_next_best(directory: Path) -> None:
    rollout = make_rollout(directory)
    rollout.refuse(rollout.choose()[0], "failed its self-test")
    assert list_versions(rollout) == [2]
    assert [refused.version for refused in rollout.list_refused()] == [3]


def test_refused_choice_leaves_the_version_that_was_served(directory: Path) -> None:
    write_default(directory, "cifar10", 1)
    rollout = make_rollout(directory)
    rollout.prove(rollout.choose()[0])
    write_default(directory, "cifar10", 2)
    rollout.refuse(rollout.choose()[0], "failed its self-test")
    assert list_versions(rollout) == [1]  # not 3, which nobody chose


def test_refusal_is_forgotten_with_its_version(directory: Path) -> None:
    rollout = make_rollout(directory)
    rollout.refuse(rollout.choose()[0], "failed its self-test")
    shutil.rmtree(directory / "cifar10" / "3")
    rollout.choose()
    assert rollout.list_refused() == []


def test_refused_version_is_tried_again_when_its_files_change(directory: Path) -> None:
    weights = directory / "cifar10" / "3" / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])  # as while it is copied there
    rollout = make_rollout(directory)
    rollout.refuse(rollout.choose()[0], "weights.safetensors does not have the SHA-256 of the card")
    assert list_versions(rollout) == [2]
    weights.write_bytes(whole)
    assert list_versions(rollout) == [3]
    assert rollout.list_refused() == []


def test_change_while_a_version_is_tried_is_a_reason_to_try_again(directory: Path) -> None:
    rollout = make_rollout(directory)
    tried = rollout.choose()[0]
    os.utime(directory / "cifar10" / "3" / "weights.safetensors", (0, 0))
    assert list_versions(rollout) == [3]
    rollout.refuse(tried, "failed its self-test")
    assert list_versions(rollout) == [3]
    rollout.refuse(rollout.choose()[0], "failed its self-test")
    assert list_versions(rollout) == [2]


def test_later_directory_says_which_version_is_the_default(directory: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    write_default(directory, "cifar10", 1)
    write_default(own, "cifar10", 2)
    rollout = Rollout(ModelRepository([directory, own]), load_settings({}, {}))
    assert list_versions(rollout) == [2]


def test_pinned_version_is_served_beside_the_default(directory: Path) -> None:
    assert list_versions(make_rollout(directory, "cifar10,cifar10@1")) == [3, 1]


@pytest.mark.parametrize(
    ("models", "meant"),
    [
        ("cifar10@1", 1),
        ("cifar10@1,cifar10@2", 2),
        ("cifar10@3,cifar10@2", 2),  # the default among them
        ("cifar10@1,cifar10@3", 3),
        ("cifar10@2,cifar10", 2),  # once, under its name
        ("cifar10,cifar10@2", 2),
    ],
)
def test_bare_name_means_one_version_where_only_pins_are_served(
    directory: Path, models: str, meant: int
) -> None:
    write_default(directory, "cifar10", 2)
    chosen = [one.model for one in make_rollout(directory, models).choose()]
    assert [one.version for one in chosen if one.is_default_version] == [meant]


def test_removed_version_is_no_longer_chosen(directory: Path) -> None:
    rollout = make_rollout(directory)
    assert list_versions(rollout) == [3]
    shutil.rmtree(directory / "cifar10" / "3")
    assert list_versions(rollout) == [2]
