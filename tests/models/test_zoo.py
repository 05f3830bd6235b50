"""Every model that ships passes its checks and its golden images. Needs no torch."""

from pathlib import Path

import pytest

import models
from models.engines.base import Placement
from models.ensemble import list_precisions, open_version
from models.repository import ModelRepository, ModelVersion, check_version
from models.selftest import decode_golden, run_selftest

ZOO = ModelRepository([Path(models.__file__).parent / "zoo"])
MAX_MODEL_BYTES = {"cifar10": 8 * 2**20, "tiny-imagenet": 25 * 2**20}


def test_nothing_in_the_zoo_is_broken() -> None:
    assert ZOO.list_problems() == ()


@pytest.mark.parametrize("version", ZOO.list(), ids=lambda version: version.reference)
def test_shipped_version_is_what_its_card_says(version: ModelVersion) -> None:
    assert check_version(version.path) == version
    for precision in list_precisions(version, ZOO, "cpu"):
        engine = open_version(version, ZOO, Placement(precision=precision))
        assert run_selftest(version.card, engine, precision).images >= 1
    sizes = {decode_golden(golden).shape[:2] for golden in version.card.golden}
    side = version.card.preprocess.crop_px
    assert sizes - {(side, side)}, "one golden image must have another size than the native one"


@pytest.mark.parametrize("version", ZOO.list(), ids=lambda version: version.reference)
def test_shipped_card_states_where_it_comes_from_and_how_well_it_does(version: ModelVersion) -> None:
    card = version.card
    assert any(metric.split == "test" for metric in card.metrics)
    if card.provenance.kind == "trained":
        made = (card.provenance.recipe, card.provenance.commit, card.provenance.duration_s)
        assert all(made)
        assert card.provenance.seed is not None


@pytest.mark.parametrize("version", ZOO.list(), ids=lambda version: version.reference)
def test_shipped_model_is_small_enough_for_git(version: ModelVersion) -> None:
    home = version.path.parent
    size_bytes = sum(path.stat().st_size for path in home.rglob("*") if path.is_file())
    assert size_bytes <= MAX_MODEL_BYTES[version.card.name]
