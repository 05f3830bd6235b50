"""The figures behind a report as files of their own, to be kept beside a document."""

import json
from collections.abc import Sequence
from pathlib import Path

from training.recipe import dump_recipe
from training.report.diagnosis import Diagnosis
from training.report.figures import draw_curves, draw_responses


def write_results(runs: Sequence[Diagnosis], folder: Path) -> None:
    """Write figure6-*.svg, figure7-*.svg and results.json: a run's recipe, journal, errors and responses."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, panels in ((6, draw_curves(runs)), (7, draw_responses(runs))):
        for letter, panel in zip("abc", panels, strict=False):
            (folder / f"figure{number}-{letter}.svg").write_text(panel + "\n", encoding="utf-8")
    content = [
        {
            "recipe": json.loads(dump_recipe(run.recipe)),
            "test_error": round(run.test_error, 3),
            "test_images": len(run.test),
            "best_validation_error": run.state.best_error,
            "best_step": run.state.step,
            "responses": [round(value, 4) for value in run.responses],
            "journal": run.journal,
        }
        for run in runs
    ]
    (folder / "results.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
