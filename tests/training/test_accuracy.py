"""The table and the plot of error against cost; what README and docs state is what was measured."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from models.repository import ModelRepository
from training.report.accuracy import (
    Row,
    draw_plot,
    find_front,
    format_short_table,
    format_table,
    read_raw,
    write_raw,
)

ROOT = Path(__file__).resolve().parents[2]
RAW = ROOT / "bench" / "results" / "evaluate-cifar10.json"
ROWS = [
    Row("center", "probabilities", "window", True, 1, 9.4, None, 0.01, 1.0, 900.0, True),
    Row("dense", "logits", "window", False, 2, 17.0, None, None, 2.5, 400.0, False),
    Row("mirror", "logits", "window", True, 2, 8.8, None, 0.01, 2.0, 450.0, True),
]


@pytest.mark.parametrize(
    ("points", "front"),
    [
        pytest.param([(1.0, 9.0), (2.0, 8.0), (3.0, 8.5)], {0, 1}, id="dearer and worse"),
        pytest.param([(1.0, 9.0), (1.0, 8.0)], {1}, id="as cheap and better"),
        pytest.param([(1.0, 8.0), (2.0, 8.0)], {0}, id="dearer and no better"),
        pytest.param([(None, 1.0), (2.0, 8.0)], {1}, id="of unknown cost"),
    ],
)
def test_front_holds_what_nothing_beats(points: list[tuple[float | None, float]], front: set[int]) -> None:
    assert find_front(points) == front


def test_table_has_a_line_a_row_and_top5_only_where_it_is_measured() -> None:
    table = format_table(ROWS)
    assert table.count("\n") == len(ROWS) + 2
    assert "top-5" not in table
    assert "| center * | probabilities | window | 1.00 | 9.40 | 0.010 | 1.00 | 900 | P |" in table
    with_top5 = format_table([Row("center", "logits", "window", True, 1, 30.0, 10.5, 0.01, 1.0, 9.0)])
    assert "| 30.00 | 10.50 | 0.010 |" in with_top5
    widths = {line.count("|") for line in table.splitlines()}
    assert len(widths) == 1


def test_plot_marks_every_row_and_draws_the_front() -> None:
    plot = ElementTree.fromstring(draw_plot("a <model>", ROWS))
    space = "{http://www.w3.org/2000/svg}"
    circles = [one for one in plot.iter(f"{space}circle") if one.get("r") == "5"]
    [line] = plot.iter(f"{space}polyline")
    assert len(circles) == len(ROWS) + 2  # and two of the legend
    assert len((line.get("points") or "").split()) == 2
    assert "mirror 8.80 %" in [one.text for one in plot.iter(f"{space}text")]


def test_rows_are_read_back_as_written(tmp_path: Path) -> None:
    write_raw(tmp_path / "new" / "raw.json", {"model": "m@1"}, ROWS)
    assert read_raw(tmp_path / "new" / "raw.json") == ROWS


def test_readme_and_docs_state_what_was_measured() -> None:
    rows = read_raw(RAW)
    assert format_short_table(rows) in (ROOT / "README.md").read_text("utf-8")
    assert format_table(rows) in (ROOT / "docs" / "training.md").read_text("utf-8")
    about = json.loads(RAW.read_text("utf-8"))
    title = f"{about['model']} ({about['architecture']}), {about['images']:,} images of {about['dataset']}"
    assert RAW.with_suffix(".svg").read_text("utf-8") == draw_plot(title, rows)


def test_measured_errors_are_those_of_the_shipped_card() -> None:
    about, rows = json.loads(RAW.read_text("utf-8")), read_raw(RAW)
    card = ModelRepository([ROOT / "models" / "zoo"]).find(about["model"]).card
    stated = {
        (metric.tta, metric.merge, metric.pool): metric.top1_error
        for metric in card.metrics
        if (metric.split, metric.precision) == ("test", "fp32")
    }
    assert {(row.tta, row.merge, row.pool): row.top1_error for row in rows} == stated
