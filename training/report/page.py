"""Runs -> one HTML page: table 6, figures 6 and 7; of every run reliability, confusion, worst mistakes."""

import base64
import io
import statistics
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.calibrate import BINS, calibration_error
from training.report.charts import Axes, Line, draw_lines, draw_matrix
from training.report.diagnosis import Diagnosis
from training.report.figures import (
    compare_responses,
    draw_curves,
    draw_responses,
    name_run,
    watched_error,
)

# He et al. 2015, table 6: test error in percent (ResNet-110: the best of five, mean 6.61 +- 0.16).
PAPER = {
    "resnet20-cifar": 8.75,
    "resnet32-cifar": 7.51,
    "resnet44-cifar": 7.17,
    "resnet56-cifar": 6.97,
    "resnet110-cifar": 6.43,
    "resnet1202-cifar": 7.93,
}
PAPER_ITERATIONS = 64_000
WORST = 24
MOST_CLASSES = 60  # that a table can show
FEW = 20  # images in a bin that say nothing about its accuracy, where there are hundreds
STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;max-width:74em;margin:1.5em auto;padding:0 1em;color:#1a1a1a}"
    "table{border-collapse:collapse;font-size:13px}"
    "td,th{border:1px solid #ccc;padding:2px 7px;text-align:right}"
    "svg{max-width:100%;min-width:400px;height:auto}p{overflow-wrap:anywhere}"
    ".wide{overflow-x:auto}.panels{display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start}"
    ".panels>*{flex:1 1 20em;max-width:560px;min-width:0;overflow-x:auto}"
    "figure{display:inline-block;width:92px;margin:3px;text-align:center;font-size:11px;vertical-align:top}"
    "img{image-rendering:pixelated;width:64px;height:64px;object-fit:contain}"
    "details{border-top:1px solid #ccc;padding:.5em 0}summary{font-weight:bold;cursor:pointer}"
)


def write_page(runs: Sequence[Diagnosis]) -> str:
    """The whole report. Only what these runs showed is in it."""
    parts = [
        "<h1>Training report</h1>",
        _table_6(runs),
        _section_6(runs),
        _section_7(runs),
        "<h2>Each run</h2>",
        *(_details(run, is_open=number == 0) for number, run in enumerate(runs)),
    ]
    head = (
        "<meta charset='utf-8'><meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>Training report</title><style>{STYLE}</style>"
    )
    body = "".join(parts)
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{body}</body></html>\n"


def _section_6(runs: Sequence[Diagnosis]) -> str:
    watched = sorted({watched_error(run).partition("_")[0] for run in runs})
    said = f"Dashed: training error. Solid: error of the {' or '.join(watched)} images."
    if "validation" in watched:
        said += " Validation images are held out of the training set, and choose the checkpoint."
    said += " Dot: test error of the chosen checkpoint."
    panels = "".join(f"<div>{panel}</div>" for panel in draw_curves(runs))
    return f"<h2>Errors while training (figure 6)</h2><p>{said}</p><div class='panels'>{panels}</div>"


def _section_7(runs: Sequence[Diagnosis]) -> str:
    said = (
        "Standard deviation of the output of every 3x3 layer, after its batch normalisation and before ReLU "
        "or addition, on test images. Dashed: plain networks."
    )
    panels = "".join(f"<div>{panel}</div>" for panel in draw_responses(runs))
    claims = "".join(f"<li>{escape(sentence)}</li>" for sentence in compare_responses(runs))
    return (
        f"<h2>Layer responses (figure 7)</h2><p>{said}</p><div class='panels'>{panels}</div><ul>{claims}</ul>"
    )


def _table_6(runs: Sequence[Diagnosis]) -> str:
    """A row for each network and recipe: mean and sample deviation over the seeds."""
    groups: dict[tuple[str, str, int], list[Diagnosis]] = {}
    for run in runs:
        groups.setdefault((run.recipe.network, run.recipe.name, run.steps), []).append(run)
    rows = []
    for (network, recipe, steps), members in groups.items():
        errors = [run.test_error for run in members]
        spread = f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
        cells = (
            network,
            recipe,
            f"{statistics.mean(errors):.2f}{spread}",
            _paper_error(members[0]),
            ", ".join(str(run.recipe.run.seed) for run in members),
            f"{members[0].trained_images:,}",
            f"{steps:,}",
            ", ".join(sorted({_fact(run, "hardware") for run in members})),
            ", ".join(sorted({_fact(run, "commit")[:7] for run in members})),
        )
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    names = ("network", "recipe", "test error %", "paper %", "seeds", "images seen", "iterations")
    head = "".join(f"<th>{name}</th>" for name in (*names, "hardware", "commit"))
    return (
        f"<h2>Test error beside the paper's (table 6)</h2><p>The paper trained for {PAPER_ITERATIONS:,} "
        "iterations of 128 images; ours for as many as stated. Errors of the test images, of the "
        "checkpoint with the least validation error.</p>"
        f"<div class='wide'><table><tr>{head}</tr>{''.join(rows)}</table></div>"
    )


def _paper_error(run: Diagnosis) -> str:
    """The paper's error for this network, if the run is of the same images."""
    is_known = run.recipe.data.dataset == "cifar10" and run.recipe.network in PAPER
    return f"{PAPER[run.recipe.network]:.2f}" if is_known else "–"


def _fact(run: Diagnosis, key: str) -> str:
    start = next((line for line in run.journal if line.get("event") == "start"), {})
    return str(start.get(key))


def _details(run: Diagnosis, is_open: bool) -> str:
    summary = f"{escape(name_run(run))}: {run.test_error:.2f} % test error"
    return (
        f"<details{' open' if is_open else ''}><summary>{summary}</summary>{_facts(run)}"
        f"<h3>Reliability on the test images</h3><div class='wide'>{_reliability(run)}</div>"
        f"<h3>Confusion on the test images</h3><div class='wide'>{_confusion(run)}</div>"
        f"<h3>Worst mistakes</h3><p>True class, and the other one that was given.</p>{_mistakes(run)}"
        "</details>"
    )


def _facts(run: Diagnosis) -> str:
    facts = [f"test error {run.test_error:.2f} % of {len(run.test):,} images"]
    facts.append(
        f"validation error {run.state.best_error:.2f} %, at step {run.state.step:,} of {run.steps:,}"
    )
    facts += [f"{key} {_fact(run, key)}" for key in ("hardware", "commit", "torch")]
    facts.append(f"{run.state.elapsed_s:.0f} s of training")
    return f"<p>{escape('; '.join(facts))}</p>"


def _reliability(run: Diagnosis) -> str:
    """Accuracy by confidence; a well calibrated network lies on the diagonal."""
    confidence = run.probabilities.max(axis=1)
    is_right = run.probabilities.argmax(axis=1) == run.test.targets
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    fewest = max(1, min(FEW, len(run.test) // 100))
    points = [
        (float(confidence[bins == index].mean()), float(is_right[bins == index].mean()))
        for index in range(BINS)
        if (bins == index).sum() >= fewest
    ]
    diagonal = Line("perfect", ((0, 0), (1, 1)), 7, "dashed")
    error = calibration_error(run.probabilities, run.test.targets)
    axes = Axes(f"expected calibration error {error:.3f}", "confidence", "accuracy", (0, 1))
    return draw_lines([Line(f"this run, bins of {fewest} images or more", tuple(points)), diagonal], axes)


def _confusion(run: Diagnosis) -> str:
    classes = len(run.test.labels)
    if classes > MOST_CLASSES:
        return f"<p>left out: {classes} classes</p>"
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
        f"{run.probabilities[index, given[index]]:.1%}</figcaption></figure>"
        for index in worst
    )


def _picture(image: NDArray[np.uint8]) -> str:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
