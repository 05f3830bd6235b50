"""The repository: names, defaults, directories, atomic writing, and every way a version can be bad."""

import json
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, load

from models.card import Member, ModelCard, dump_card, parse_card
from models.integrity import BadVersion
from models.repository import (
    ModelRepository,
    ModelVersion,
    UnknownModel,
    VersionExists,
    check_members,
    check_version,
    read_version,
    write_default,
    write_version,
)
from tests.models.making import random_version

WEIGHTS, GRAPH, CARD = "weights.safetensors", "graph.onnx", "card.json"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    return random_version(tmp_path_factory.mktemp("original"))


@pytest.fixture
def version(original: ModelVersion, tmp_path: Path) -> ModelVersion:
    """A copy of `original` that a test may spoil."""
    return copy_version(original, tmp_path / "repository")


def copy_version(version: ModelVersion, directory: Path, number: int | None = None) -> ModelVersion:
    files = {name: (version.path / name).read_bytes() for name in version.card.files}
    return write_version(directory, replace(version.card, version=number or version.card.version), files)


def reseal(version: ModelVersion) -> None:
    """Give the card the SHA-256 the files now have, so that the checks behind it are reached."""
    files = {name: sha256((version.path / name).read_bytes()).hexdigest() for name in version.card.files}
    (version.path / CARD).write_bytes(dump_card(replace(version.card, files=files)))


def test_good_version_passes_its_check(version: ModelVersion) -> None:
    assert check_version(version.path) == version


def test_bare_name_means_the_highest_number_not_the_last_in_the_alphabet(version: ModelVersion) -> None:
    directory = version.path.parent.parent
    for number in (2, 10):
        copy_version(version, directory, number)
    repository = ModelRepository([directory])
    assert repository.find("small").reference == "small@10"
    assert repository.find("small@2").reference == "small@2"
    assert [found.card.version for found in repository.list()] == [1, 2, 10]


def test_serving_json_names_the_default(version: ModelVersion) -> None:
    directory = version.path.parent.parent
    copy_version(version, directory, 2)
    write_default(directory, "small", 1)
    assert ModelRepository([directory]).find("small").reference == "small@1"


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 1}', '{"default": "1"}', '{"default": true}'])
def test_broken_serving_json_is_refused_with_its_form(version: ModelVersion, text: str) -> None:
    (version.path.parent / "serving.json").write_text(text)
    with pytest.raises(BadVersion, match=r"small/serving\.json"):
        ModelRepository([version.path.parent.parent]).find("small")


def test_earlier_directory_wins_and_later_ones_add(version: ModelVersion, tmp_path: Path) -> None:
    second = tmp_path / "second"
    copy_version(version, second, 1)
    copy_version(version, second, 2)
    repository = ModelRepository([version.path.parent.parent, second, tmp_path / "absent"])
    assert [found.path.parent.parent.name for found in repository.list()] == ["repository", "second"]


@pytest.mark.parametrize("name", ["smal", "small@9", "small@", "small@01", "../small", "", "small@1@1"])
def test_unknown_names_are_refused(version: ModelVersion, name: str) -> None:
    with pytest.raises(UnknownModel):
        ModelRepository([version.path.parent.parent]).find(name)


def test_a_version_never_changes(version: ModelVersion) -> None:
    with pytest.raises(VersionExists):
        copy_version(version, version.path.parent.parent, 1)
    assert check_version(version.path) == version


def test_refused_version_leaves_nothing_behind(version: ModelVersion, tmp_path: Path) -> None:
    with pytest.raises(BadVersion):
        write_version(tmp_path / "new", version.card, {WEIGHTS: b"no weights", GRAPH: b"no graph"})
    assert list((tmp_path / "new" / "small").iterdir()) == []


def test_disk_that_fills_up_leaves_nothing_behind(version: ModelVersion, tmp_path: Path) -> None:
    """A limit on file sizes fails a write half-way, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))  # the weights have 1.1 MB
    try:
        with pytest.raises(OSError, match="File too large"):
            copy_version(version, tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "full" / "small").iterdir()) == []


@pytest.mark.parametrize("name", ["", "..", "Upper", "a/b", ".hidden", "x" * 65])
def test_odd_model_names_are_refused(version: ModelVersion, tmp_path: Path, name: str) -> None:
    with pytest.raises(BadVersion, match="model name"):
        write_version(tmp_path, replace(version.card, name=name), {})


def test_removed_version_is_gone_and_a_mended_one_is_read_again(version: ModelVersion) -> None:
    directory = version.path.parent.parent
    repository = ModelRepository([directory])
    second = copy_version(version, directory, 2)
    card = (second.path / CARD).read_bytes()
    assert repository.find("small") == second
    (second.path / CARD).write_bytes(b"{}")
    assert repository.find("small") == version
    (second.path / CARD).write_bytes(card)
    assert repository.find("small") == second
    shutil.rmtree(second.path)
    assert repository.find("small") == version
    assert repository.list_problems() == ()


def test_unreadable_versions_are_problems_not_failures(version: ModelVersion) -> None:
    broken = version.path.parent / "7"
    broken.mkdir()
    (broken / CARD).write_text("{}")
    repository = ModelRepository([version.path.parent.parent])
    assert [found.card.version for found in repository.list()] == [1]
    assert [problem.path for problem in repository.list_problems()] == [broken]


def flip_a_weight(version: ModelVersion) -> None:
    data = bytearray((version.path / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (version.path / WEIGHTS).write_bytes(data)


def add_a_file(version: ModelVersion) -> None:
    (version.path / "extra.py").write_text("")


def remove_the_graph(version: ModelVersion) -> None:
    (version.path / GRAPH).unlink()


def link_the_graph(version: ModelVersion) -> None:
    moved = version.path.parent.parent / "moved.onnx"
    (version.path / GRAPH).rename(moved)
    (version.path / GRAPH).symlink_to(moved)


def link_the_card(version: ModelVersion) -> None:
    moved = version.path.parent.parent / "moved.json"
    (version.path / CARD).rename(moved)
    (version.path / CARD).symlink_to(moved)


def spoil_the_card(version: ModelVersion) -> None:
    (version.path / CARD).write_text('{"name": "small"}')


def rename_in_the_card(version: ModelVersion) -> None:
    (version.path / CARD).write_bytes(dump_card(replace(version.card, name="other")))


def list_an_odd_file(version: ModelVersion) -> None:
    files = {**version.card.files, "../../passwd": "0" * 64}
    (version.path / CARD).write_bytes(dump_card(replace(version.card, files=files)))


def put_a_nan(version: ModelVersion) -> None:
    data = bytearray((version.path / WEIGHTS).read_bytes())
    data[-4:] = np.float32(np.nan).tobytes()
    (version.path / WEIGHTS).write_bytes(data)
    reseal(version)


def cut_the_weights(version: ModelVersion) -> None:
    (version.path / WEIGHTS).write_bytes((version.path / WEIGHTS).read_bytes()[:-4])
    reseal(version)


def claim_a_huge_header(version: ModelVersion) -> None:
    (version.path / WEIGHTS).write_bytes(b"\xff" * 8 + (version.path / WEIGHTS).read_bytes()[8:])
    reseal(version)


def change_a_shape(version: ModelVersion) -> None:
    data = (version.path / WEIGHTS).read_bytes()
    (version.path / WEIGHTS).write_bytes(data.replace(b'"shape":[10,64]', b'"shape":[10,63]'))
    reseal(version)


def forget_a_label(version: ModelVersion) -> None:
    card = replace(version.card, labels=version.card.labels[:-1], golden=())
    (version.path / CARD).write_bytes(dump_card(card))


def forget_the_golden_images(version: ModelVersion) -> None:
    (version.path / CARD).write_bytes(dump_card(replace(version.card, golden=())))


def edit_graph(version: ModelVersion, key: str, value: str) -> None:
    model = load(version.path / GRAPH, load_external_data=False)
    constant = next(constant for constant in model.graph.initializer if constant.external_data)
    next(entry for entry in constant.external_data if entry.key == key).value = value
    (version.path / GRAPH).write_bytes(model.SerializeToString())
    reseal(version)


def read_another_file(version: ModelVersion) -> None:
    edit_graph(version, "location", "../../../../etc/passwd")


def read_beyond_the_weights(version: ModelVersion) -> None:
    edit_graph(version, "offset", "99999999")


def read_another_tensor(version: ModelVersion) -> None:
    edit_graph(version, "offset", "0")


def hide_a_graph(version: ModelVersion) -> None:
    model = load(version.path / GRAPH, load_external_data=False)
    inner = helper.make_graph([], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["views"], ["y"], then_branch=inner, else_branch=inner))
    (version.path / GRAPH).write_bytes(model.SerializeToString())
    reseal(version)


def add_an_input(version: ModelVersion) -> None:
    model = load(version.path / GRAPH, load_external_data=False)
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    (version.path / GRAPH).write_bytes(model.SerializeToString())
    reseal(version)


def spoil_the_graph(version: ModelVersion) -> None:
    (version.path / GRAPH).write_bytes(b"\x0a\xff\xff")
    reseal(version)


FAULTS: list[tuple[Callable[[ModelVersion], None], str]] = [
    (flip_a_weight, "SHA-256"),
    (add_a_file, "extra.py"),
    (remove_the_graph, "graph.onnx is missing"),
    (link_the_graph, "link"),
    (link_the_card, "link"),
    (spoil_the_card, "version"),
    (rename_in_the_card, "other@1"),
    (list_an_odd_file, "passwd"),
    (put_a_nan, "NaN"),
    (cut_the_weights, "end at byte"),
    (claim_a_huge_header, "header"),
    (change_a_shape, "fc.weight"),
    (forget_a_label, "9 labels|golden"),
    (forget_the_golden_images, "golden"),
    (read_another_file, "outside weights.safetensors"),
    (read_beyond_the_weights, "not where"),
    (read_another_tensor, "not where"),
    (hide_a_graph, "kind g"),
    (add_an_input, "inputs"),
    (spoil_the_graph, "graph"),
]


@pytest.mark.parametrize(("spoil", "message"), FAULTS, ids=[spoil.__name__ for spoil, _ in FAULTS])
def test_check_refuses(version: ModelVersion, spoil: Callable[[ModelVersion], None], message: str) -> None:
    spoil(version)
    with pytest.raises(BadVersion, match=message):
        check_version(version.path)


def ensemble_of(*members: ModelVersion) -> ModelCard:
    card = members[0].card
    pins = tuple(Member(member.card.name, member.card.version, member.digest) for member in members)
    return replace(card, name="pair", version=0, files={}, members=pins)


def test_ensemble_finds_its_pinned_members(version: ModelVersion, tmp_path: Path) -> None:
    directory = version.path.parent.parent
    second = copy_version(version, directory, 2)
    ensemble = write_version(directory, ensemble_of(version, second), {})
    assert check_version(ensemble.path) == ensemble
    assert check_members(ensemble, ModelRepository([directory])) == [version, second]


def test_ensemble_refuses_a_member_of_another_digest(version: ModelVersion) -> None:
    directory = version.path.parent.parent
    card = ensemble_of(version)
    changed = replace(card, members=(replace(card.members[0], digest="0" * 64),))
    ensemble = write_version(directory, changed, {})
    with pytest.raises(BadVersion, match="digest"):
        check_members(ensemble, ModelRepository([directory]))


@pytest.mark.parametrize("field", ["labels", "preprocess"])
def test_ensemble_refuses_a_member_with_another(version: ModelVersion, field: str) -> None:
    directory = version.path.parent.parent
    card = ensemble_of(version)
    other = {
        "labels": card.labels[::-1],
        "preprocess": replace(card.preprocess, crop_px=28),
    }
    ensemble = write_version(directory, replace(card, **{field: other[field]}), {})  # type: ignore[arg-type]  # by name
    with pytest.raises(BadVersion, match=field):
        check_members(ensemble, ModelRepository([directory]))


def test_digest_is_of_the_card_bytes(version: ModelVersion) -> None:
    again = read_version(version.path)
    assert again.digest == version.digest
    assert json.loads((version.path / CARD).read_bytes())["name"] == "small"
    assert parse_card((version.path / CARD).read_bytes()) == version.card
