"""The shipped model on real photographs: the cat is a cat; the rest is counted and printed, not tuned."""

from pathlib import Path

import pytest

from models.decode import DecodeLimits, decode_image
from models.engines.onnx import OnnxEngine
from models.repository import ModelRepository, ModelVersion
from models.views import find_policy
from models.views.base import PAPER_SCALES, Classifier, Scores, ViewContext, ViewOutput

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
PHOTOGRAPHS = sorted((DATA / "photos").glob("*.jpg"))


@pytest.fixture(scope="module")
def version() -> ModelVersion:
    return ModelRepository([ROOT / "models" / "zoo"]).find("cifar10")


def classify(path: Path, version: ModelVersion, engine: OnnxEngine, tta: str) -> str:
    """The label of the best class, by the whole way from bytes to scores."""
    card = version.card
    fitted = card.policy(tta)
    context = ViewContext(
        card.preprocess, card.window, Classifier(*engine.classifier), fitted, fitted.merge, fitted.pool,
        max_view_pixels=4_000_000, scales=PAPER_SCALES,
    )  # fmt: skip
    looks = find_policy(tta).look(decode_image(path.read_bytes(), DecodeLimits()).pixels, context)
    look = next(looks)
    while True:
        answers = [engine.infer(view[None], features=look.features) for view in look.views]
        outputs = [
            ViewOutput(answer.logits[0], None if answer.features is None else answer.features[0])
            for answer in answers
        ]
        try:
            look = looks.send(outputs)
        except StopIteration as end:
            scores: Scores = end.value
            return card.labels[int(scores.probabilities.argmax())]


def test_the_cat_is_a_cat(version: ModelVersion) -> None:
    assert classify(DATA / "cat.jpg", version, OnnxEngine(version), "center") == "cat"


def test_every_photograph_is_documented_with_its_licence() -> None:
    rows = [line for line in (DATA / "README.md").read_text(encoding="utf-8").splitlines() if "| `" in line]
    documented = {row.split("`")[1] for row in rows}
    assert {name for name in documented if name.startswith("photos/")} == {
        f"photos/{path.name}" for path in PHOTOGRAPHS
    }
    assert "cat.jpg" in documented
    assert all(row.rstrip(" |").rsplit("|", 1)[1].strip() for row in rows)
    assert sum(path.stat().st_size for path in PHOTOGRAPHS) < 2_000_000


def test_photographs_of_other_classes_are_classified(
    version: ModelVersion, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = OnnxEngine(version)
    writer = request.config.get_terminal_writer()
    for tta in ("center", "multi_scale"):
        answers = {path.stem: classify(path, version, engine, tta) for path in PHOTOGRAPHS}
        right = [name for name, label in answers.items() if name.split("-")[0] == label]
        assert len(PHOTOGRAPHS) >= 10
        assert set(answers.values()) <= set(version.card.labels)
        wrong = ", ".join(f"{name}: {answers[name]}" for name in answers if name not in right)
        with capsys.disabled():
            writer.line(f"\n{tta}: {len(right)} of {len(PHOTOGRAPHS)} photographs right; wrong: {wrong}")
