"""Runs -> one HTML page: table 6, figure 6, figure 7, confusion, worst mistakes, reliability."""

import base64
import io
import statistics
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.calibrate import BINS
from training.report.charts import Axes, Line, draw_lines, draw_matrix
from training.report.diagnosis import Diagnosis

# He et al. 2015, table 6: test error in percent (ResNet-110: the best of five, mean 6.61 +- 0.16).
PAPER = {
    "resnet20-cifar": 8.75,
    "resnet32-cifar": 7.51,
    "resnet44-cifar": 7.17,
    "resnet56-cifar": 6.97,
    "resnet110-cifar": 6.43,
    "resnet1202-cifar": 7.93,
}
WORST = 24
STYLE = (
    "body{font:14px sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:2px 6px;text-align:right}"
    "figure{display:inline-block;margin:4px;text-align:center;font-size:11px}"
    "img{image-rendering:pixelated;width:64px}"
)


def write_page(runs: Sequence[Diagnosis]) -> str:
    """The whole report. Only what these runs showed is in it."""
    parts = ["<h1>Training report</h1>", _table_6(runs), "<h2>Errors while training (figure 6)</h2>"]
    parts.append("<p>Dashed: training error. Solid: validation error, of the images that chose.</p>")
    parts += [_curves(runs), "<h2>Layer responses (figure 7)</h2>", _responses(runs)]
    for run in runs:
        parts.append(f"<h2>{escape(_name(run))}</h2>{_facts(run)}")
        parts.append(f"<h3>Reliability on the test images</h3>{_reliability(run)}")
        parts.append(f"<h3>Confusion on the test images</h3>{_confusion(run)}")
        parts.append(f"<h3>Worst mistakes</h3>{_mistakes(run)}")
    head = f"<meta charset='utf-8'><title>Training report</title><style>{STYLE}</style>"
    return f"<!doctype html><html><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def _name(run: Diagnosis) -> str:
    return f"{run.recipe.network}, {run.recipe.name}, seed {run.recipe.run.seed}"


def _table_6(runs: Sequence[Diagnosis]) -> str:
    groups: dict[tuple[str, str], list[Diagnosis]] = {}
    for run in runs:
        groups.setdefault((run.recipe.network, run.recipe.name), []).append(run)
    rows = []
    for (network, recipe), members in groups.items():
        errors = [run.test_error for run in members]
        spread = f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
        seeds = ", ".join(str(run.recipe.run.seed) for run in members)
        paper = f"{PAPER[network]:.2f}" if network in PAPER else "–"
        seen = f"{50_000 - members[0].recipe.data.validation:,}"
        mean = f"{statistics.mean(errors):.2f}{spread}"
        cells = (network, recipe, mean, paper, seeds, seen, str(members[0].state.step))
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    names = ("network", "recipe", "test error %", "paper %", "seeds", "images seen", "steps")
    head = "".join(f"<th>{name}</th>" for name in names)
    return f"<h2>Test error beside the paper's (table 6)</h2><table><tr>{head}</tr>{''.join(rows)}</table>"


def _points(run: Diagnosis, key: str) -> tuple[tuple[float, float], ...]:
    lines = [(line.get("epoch"), line.get(key)) for line in run.evaluations]
    return tuple(
        (float(x), float(y)) for x, y in lines if isinstance(x, int | float) and isinstance(y, int | float)
    )


def _curves(runs: Sequence[Diagnosis]) -> str:
    lines = []
    for number, run in enumerate(runs):
        lines.append(Line(f"{_name(run)}: validation", _points(run, "validation_error"), number))
        lines.append(Line(f"{_name(run)}: training", _points(run, "train_error"), number, is_dashed=True))
    return draw_lines(lines, Axes("epoch", "error %", (0, 60)))


def _responses(runs: Sequence[Diagnosis]) -> str:
    lines = [
        Line(_name(run), tuple((float(layer), value) for layer, value in enumerate(run.responses, 1)), number)
        for number, run in enumerate(runs)
    ]
    means = "; ".join(f"{_name(run)}: mean {statistics.mean(run.responses):.3f}" for run in runs)
    return draw_lines(lines, Axes("3x3 layer, in order", "deviation")) + f"<p>{escape(means)}</p>"


def _facts(run: Diagnosis) -> str:
    start = next((line for line in run.journal if line.get("event") == "start"), {})
    facts = [f"test error {run.test_error:.2f} % of {len(run.test):,} images"]
    facts.append(f"validation error {run.state.best_error:.2f} %, step {run.state.step}")
    facts += [f"{key} {start.get(key)}" for key in ("hardware", "commit", "torch")]
    facts.append(f"{run.state.elapsed_s:.0f} s of training")
    return f"<p>{escape('; '.join(facts))}</p>"


def _reliability(run: Diagnosis) -> str:
    """Accuracy by confidence; a well calibrated network lies on the diagonal."""
    confidence = run.probabilities.max(axis=1)
    is_right = run.probabilities.argmax(axis=1) == run.test.targets
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    points = [
        (float(confidence[bins == index].mean()), float(is_right[bins == index].mean()))
        for index in range(BINS)
        if (bins == index).any()
    ]
    diagonal = Line("perfect", ((0, 0), (1, 1)), 7, is_dashed=True)
    return draw_lines([Line("this run", tuple(points)), diagonal], Axes("confidence", "accuracy", (0, 1)))


def _confusion(run: Diagnosis) -> str:
    classes = len(run.test.labels)
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (run.test.targets, run.probabilities.argmax(axis=1)), 1)
    return draw_matrix(matrix, run.test.labels)


def _mistakes(run: Diagnosis) -> str:
    """The wrong answers given with the most confidence."""
    given = run.probabilities.argmax(axis=1)
    wrong = np.flatnonzero(given != run.test.targets)
    worst = wrong[np.argsort(-run.probabilities[wrong, given[wrong]])][:WORST]
    return "".join(
        f"<figure><img alt='' src='{_picture(run.test.images[index])}'><figcaption>"
        f"{escape(run.test.labels[run.test.targets[index]])}, "
        f"called<br>{escape(run.test.labels[given[index]])} "
        f"{run.probabilities[index, given[index]]:.0%}</figcaption></figure>"
        for index in worst
    )


def _picture(image: NDArray[np.uint8]) -> str:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
